// What kernels need of the thread pool: a place to meet. (threads.hpp has more than a kernel unit may include.)
#pragma once

#include "types.hpp"

namespace fastrnn {

// Returns when every member of the team has called it; everything written before is then visible to all.
void team_wait(const Team& team) noexcept;

}  // namespace fastrnn
