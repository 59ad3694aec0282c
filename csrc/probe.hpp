// Measuring aids: work whose amount is known, for a caller that times it.
#pragma once

#include "fastrnn/fastrnn.h"

namespace fastrnn {

// Does what the probe says, `repeats` times; in `work` its amount.
fastrnn_status run_probe(const fastrnn_probe& probe, double& work) noexcept;

}  // namespace fastrnn
