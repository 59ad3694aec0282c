// What kernels need of the thread pool: the next item of work that a team shares. (threads.hpp has more than a kernel unit may
// include.)
#pragma once

#include "types.hpp"

namespace fastrnn {

// The next item of [0, count) for this member of the team, or -1 when all of them are done, by whomever; what they wrote is
// then visible, and the next call is about the next phase. (Phases in threads.hpp.)
int64_t team_claim(Team& team, int64_t count) noexcept;

}  // namespace fastrnn
