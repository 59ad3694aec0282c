// Random problems through the C interface: with several threads, and with every way to share the work, the results have the
// bits they have with one; all but the weight gradients have them also where gates are computed again; nothing outside the
// buffers is written. Run by CTest, and under the sanitizers by .ci/run
// (FASTRNN_SANITIZE). Usage: test_random [problems] [seed]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "fastrnn/fastrnn.h"

namespace {

using Random = std::mt19937;

int64_t draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

// Bytes on a line of their own between two guards that must stay as they are. Exactly as long as asked for, so that the address
// sanitizer sees the first byte too many.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : size_(static_cast<size_t>(bytes)), memory_(size_ + 128, guard) {
    const auto at = reinterpret_cast<uintptr_t>(memory_.data());
    offset_ = (64 - at % 64) % 64;
    for (size_t i = 0; i < size_; ++i) memory_[offset_ + i] = 0;
  }
  char* data() { return memory_.data() + offset_; }
  size_t size() const { return size_; }
  bool whole() const {
    for (size_t i = 0; i < memory_.size(); ++i) {
      const bool inside = i >= offset_ && i < offset_ + size_;
      if (!inside && memory_[i] != guard) return false;
    }
    return true;
  }
  void fill(Random& random, bool f32) {
    std::uniform_real_distribution<double> uniform(-1, 1);
    const size_t count = size_ / (f32 ? 4 : 8);
    for (size_t i = 0; i < count; ++i) {
      const double value = uniform(random);
      const auto narrow = static_cast<float>(value);
      if (f32) {
        std::memcpy(data() + 4 * i, &narrow, 4);
      } else {
        std::memcpy(data() + 8 * i, &value, 8);
      }
    }
  }

 private:
  static constexpr char guard = 0x5a;
  size_t size_, offset_ = 0;
  std::vector<char> memory_;
};

struct Case {
  fastrnn_problem problem;
  std::vector<int64_t> lengths;                       // padded
  std::vector<int64_t> offsets, batch_sizes, places;  // packed
  std::vector<uint8_t> reset, mask;
  bool states;
  bool zone_h, zone_c,
      zone_repeats;  // zoneout of which state; the same shares for every direction, step and row
  uint32_t seed;
};

// Makes rows with lengths packed ones, of the same lengths, by rows or by steps.
void pack_rows(Random& random, Case& c) {
  fastrnn_problem& p = c.problem;
  std::vector<int64_t> order;
  for (int64_t n = 0; n < p.N; ++n) order.push_back(n);
  const auto length = [&](int64_t n) { return c.lengths[static_cast<size_t>(n)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return length(a) > length(b); });
  for (int64_t n = 0; n < p.N; ++n) p.rows += length(n);
  if (p.rows == 0) return;  // stays padded
  p.T = length(order[0]);
  if (draw(random, 0, 1) != 0) {
    c.offsets.push_back(0);
    for (int64_t n = 0; n < p.N; ++n) c.offsets.push_back(c.offsets.back() + length(n));
  } else {
    for (int64_t t = 0; t < p.T; ++t) {
      c.batch_sizes.push_back(
          std::count_if(order.begin(), order.end(), [&](int64_t n) { return length(n) > t; }));
    }
    c.places.resize(order.size());
    for (size_t place = 0; place < order.size(); ++place)
      c.places[static_cast<size_t>(order[place])] = static_cast<int64_t>(place);
  }
  c.lengths.clear();
}

Case random_case(Random& random) {
  Case c{};
  fastrnn_problem& p = c.problem;
  p.struct_size = sizeof p;
  p.cell = static_cast<uint32_t>(draw(random, 0, 3));
  p.activation = static_cast<uint32_t>(draw(random, 0, 3) == 0 ? FASTRNN_CLAMP : FASTRNN_STANDARD);
  p.dtype = static_cast<uint32_t>(draw(random, 0, 1));
  p.T = draw(random, 0, 9);
  p.N = draw(random, 0, 1) != 0 ? draw(random, 0, 3) : draw(random, 4, 27);
  p.I = draw(random, 0, 1) != 0 ? draw(random, 1, 20) : draw(random, 21, 70);
  p.H = draw(random, 0, 2) != 0 ? draw(random, 1, 40) : draw(random, 41, 150);
  p.L = draw(random, 1, 4);
  p.D = static_cast<uint32_t>(draw(random, 1, 2));
  p.bias = static_cast<uint32_t>(draw(random, 0, 1));
  p.retain = static_cast<uint32_t>(draw(random, 0, 1));
  p.isa = -1;
  p.save = static_cast<uint32_t>(draw(random, 0, 1));
  p.segment = static_cast<uint32_t>(draw(random, 0, 4));
  if (draw(random, 0, 1) != 0) {
    for (int64_t n = 0; n < p.N; ++n) c.lengths.push_back(draw(random, 0, p.T));
    if (draw(random, 0, 1) != 0) pack_rows(random, c);
  }
  const auto cells = static_cast<size_t>(p.rows != 0 ? p.rows : p.T * p.N);
  if (draw(random, 0, 2) == 0) {
    for (size_t i = 0; i < cells; ++i) c.reset.push_back(draw(random, 0, 3) == 0);
  }
  if (draw(random, 0, 2) == 0) {
    for (size_t i = 0; i < cells; ++i) c.mask.push_back(draw(random, 0, 3) != 0);
  }
  c.states = draw(random, 0, 1) != 0;
  if (draw(random, 0, 2) == 0) p.regularisers |= FASTRNN_RECURRENT_DROPOUT;
  if (draw(random, 0, 2) == 0) p.regularisers |= FASTRNN_ZONEOUT;
  c.zone_h = draw(random, 0, 3) != 0;
  c.zone_c = draw(random, 0, 3) != 0;
  c.zone_repeats = draw(random, 0, 3) == 0;
  c.seed = static_cast<uint32_t>(draw(random, 0, 1 << 30));
  return c;
}

template <class T>
const T* pointer(const std::vector<T>& v) {
  return v.empty() ? nullptr : v.data();
}

void must(fastrnn_status status, const char* what) {
  if (status == FASTRNN_OK) return;
  std::printf("%s: %s\n", what, fastrnn_status_text(status));
  std::exit(1);
}

// The same for both kinds of arguments: recurrent dropout and zoneout, with factors that are any numbers.
struct Regularisers {
  Regularisers(const Case& c, int64_t item, Random& random)
      : mask(masked(c) * c.problem.N * c.problem.H * item),
        zone_h(shares(c) * item),
        zone_c(shares(c) * item) {
    for (Buffer* b : {&mask, &zone_h, &zone_c}) b->fill(random, item == 4);
  }
  template <class Args>
  void give(const Case& c, Args& a) {
    const fastrnn_problem& p = c.problem;
    const bool zoned = (p.regularisers & FASTRNN_ZONEOUT) != 0;
    a.recurrent_dropout = masked(c) != 0 ? mask.data() : nullptr;
    a.zoneout_h = zoned && c.zone_h ? zone_h.data() : nullptr;
    a.zoneout_c = zoned && c.zone_c && p.cell == FASTRNN_LSTM ? zone_c.data() : nullptr;
    a.zoneout_k = c.zone_repeats ? 0 : p.T * p.N * p.H;
    a.zoneout_t = c.zone_repeats ? 0 : p.N * p.H;
    a.zoneout_n = c.zone_repeats ? 0 : p.H;
  }
  static int64_t masked(const Case& c) {
    const bool on = (c.problem.regularisers & FASTRNN_RECURRENT_DROPOUT) != 0;
    return on ? c.problem.L * c.problem.D : 0;
  }
  static int64_t shares(const Case& c) {
    const fastrnn_problem& p = c.problem;
    return c.zone_repeats ? p.H : p.L * p.D * p.T * p.N * p.H;
  }
  Buffer mask, zone_h, zone_c;
};

// Everything a caller gets from one forward and backward: y, states, dx, their gradients and the weights'.
std::vector<Buffer> run(const Case& c, uint32_t threads, uint32_t split) {
  fastrnn_problem p = c.problem;
  p.threads = threads;
  p.split = split;
  fastrnn_sizes sizes{};
  sizes.struct_size = sizeof sizes;
  must(fastrnn_plan(&p, &sizes), "plan");
  const bool f32 = p.dtype == FASTRNN_F32, lstm = p.cell == FASTRNN_LSTM;
  const int64_t item = f32 ? 4 : 8, width = int64_t{p.D} * p.H,
                rows = p.rows != 0 ? p.rows : p.T * p.N;
  const int64_t state = p.L * p.D * p.N * p.H * item;
  Random random(c.seed);
  Buffer weights(sizes.weights * item), x(rows * p.I * item), h0(state), c0(state),
      dy(rows * width * item), dhn(state), dcn(state);
  for (Buffer* b : {&weights, &x, &h0, &c0, &dy, &dhn, &dcn}) b->fill(random, f32);
  Regularisers regular(c, item, random);
  Buffer packed(sizes.packed), packed_backward(sizes.packed_backward), tape(sizes.tape),
      forward_workspace(sizes.forward_workspace), backward_workspace(sizes.backward_workspace);
  std::vector<Buffer> out;
  for (int64_t bytes : {rows * width * item, state, state, rows * p.I * item, state, state,
                        sizes.weights * item, state * p.T, state * p.T})
    out.emplace_back(bytes);
  must(fastrnn_pack(&p, weights.data(), packed.data(), packed_backward.data()), "pack");

  fastrnn_forward_args f{};
  f.struct_size = sizeof f;
  f.packed = packed.data();
  f.x = x.data();
  f.x_t = p.rows != 0 ? p.I : p.N * p.I;
  f.x_n = p.I;
  f.y = out[0].data();
  f.y_t = p.rows != 0 ? width : p.N * width;
  f.y_n = width;
  f.h0 = c.states ? h0.data() : nullptr;
  f.c0 = c.states && lstm ? c0.data() : nullptr;
  f.hn = out[1].data();
  f.cn = lstm ? out[2].data() : nullptr;
  f.lengths = pointer(c.lengths);
  f.offsets = pointer(c.offsets);
  f.batch_sizes = pointer(c.batch_sizes);
  f.places = pointer(c.places);
  f.reset = pointer(c.reset);
  f.mask = pointer(c.mask);
  regular.give(c, f);
  f.tape = tape.data();
  f.workspace = forward_workspace.data();
  must(fastrnn_forward(&p, &f), "forward");

  fastrnn_backward_args b{};
  b.struct_size = sizeof b;
  b.packed_backward = packed_backward.data();
  b.packed = p.save == FASTRNN_SAVE_RECOMPUTE ? packed.data() : nullptr;
  b.x = f.x;
  b.x_t = f.x_t;
  b.x_n = f.x_n;
  b.y = f.y;
  b.y_t = f.y_t;
  b.y_n = f.y_n;
  b.h0 = f.h0;
  b.c0 = f.c0;
  b.dy = dy.data();
  b.dy_t = f.y_t;
  b.dy_n = f.y_n;
  b.dhn = dhn.data();
  b.dcn = lstm ? dcn.data() : nullptr;
  b.dx = out[3].data();
  b.dx_t = f.x_t;
  b.dx_n = f.x_n;
  b.dh0 = out[4].data();
  b.dc0 = lstm ? out[5].data() : nullptr;
  b.dweights = out[6].data();
  if (c.seed % 2 != 0) {  // all gradients on the way
    b.dh_all = out[7].data();
    b.dc_all = lstm ? out[8].data() : nullptr;
  }
  b.lengths = f.lengths;
  b.offsets = f.offsets;
  b.batch_sizes = f.batch_sizes;
  b.places = f.places;
  b.reset = f.reset;
  b.mask = f.mask;
  regular.give(c, b);
  b.tape = tape.data();
  b.workspace = backward_workspace.data();
  must(fastrnn_backward(&p, &b), "backward");
  for (const Buffer* buffer :
       {&packed, &packed_backward, &tape, &forward_workspace, &backward_workspace}) {
    if (!buffer->whole()) out.clear();
  }
  for (const Buffer& buffer : out) {
    if (!buffer.whole()) out.clear();
  }
  return out;
}

void describe(const Case& c, uint32_t threads, uint32_t split, const char* what) {
  const fastrnn_problem& p = c.problem;
  std::printf(
      "%s: cell %u dtype %u T %lld N %lld I %lld H %lld L %lld D %u rows %lld lengths %d "
      "offsets %d reset %d mask %d "
      "save %u "
      "segment %u regularisers %u, %u threads, split %u\n",
      what, p.cell, p.dtype, static_cast<long long>(p.T), static_cast<long long>(p.N),
      static_cast<long long>(p.I), static_cast<long long>(p.H), static_cast<long long>(p.L), p.D,
      static_cast<long long>(p.rows), !c.lengths.empty(), !c.offsets.empty(), !c.reset.empty(),
      !c.mask.empty(), p.save, p.segment, p.regularisers, threads, split);
}

// `count` of the outputs have the expected bits.
bool agrees(const Case& c, const std::vector<Buffer>& expected, uint32_t threads, uint32_t split,
            size_t count) {
  std::vector<Buffer> got = run(c, threads, split);
  if (got.empty()) {
    describe(c, threads, split, "written outside of a buffer");
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    Buffer& a = const_cast<Buffer&>(expected[i]);
    if (std::memcmp(a.data(), got[i].data(), got[i].size()) == 0) continue;
    describe(c, threads, split, "other bits");
    return false;
  }
  return true;
}

bool check(Random& random) {
  const Case c = random_case(random);
  const std::vector<Buffer> expected = run(c, 1, FASTRNN_SPLIT_CHOSEN);
  if (expected.empty()) {
    describe(c, 1, 0, "written outside of a buffer");
    return false;
  }
  bool good = true;
  for (uint32_t split = FASTRNN_SPLIT_CHOSEN; split <= FASTRNN_SPLIT_LAYERS; ++split)
    good = agrees(c, expected, static_cast<uint32_t>(draw(random, 2, 4)), split, 9) && good;
  Case other = c;
  other.problem.save = FASTRNN_SAVE_ALL + FASTRNN_SAVE_RECOMPUTE - c.problem.save;
  return agrees(other, expected, 1, FASTRNN_SPLIT_CHOSEN, 6) && good;  // the last is dweights
}

}  // namespace

int main(int argc, char** argv) {
  const long problems = argc > 1 ? std::atol(argv[1]) : 100;
  const auto seed = static_cast<uint32_t>(argc > 2 ? std::atol(argv[2]) : 1);
  // Two callers at once: one finds the pool of threads taken and runs alone.
  int failures[2] = {};
  const auto worker = [&](int i) {
    Random random(seed + static_cast<uint32_t>(i));
    for (long k = 0; k < problems; ++k) failures[i] += check(random) ? 0 : 1;
  };
  std::thread other(worker, 1);
  worker(0);
  other.join();
  std::printf("%ld problems, %d failures\n", 2 * problems, failures[0] + failures[1]);
  return failures[0] + failures[1] == 0 ? 0 : 1;
}
