// A GRU over blocks of samples, as an audio callback gets them: its state goes on from one block to the next.
#include <cstdio>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <vector>

#include "fastrnn/fastrnn.h"

namespace {

// Memory on a 64-byte boundary, for packed weights and workspace.
class Block {
 public:
  explicit Block(int64_t bytes) : memory_(::operator new(static_cast<size_t>(bytes) + 1, line)) {}
  void* get() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t line{64};
  struct Free {
    void operator()(void* p) const { ::operator delete(p, line); }
  };
  std::unique_ptr<void, Free> memory_;
};

void check(fastrnn_status status) {
  if (status != FASTRNN_OK) throw std::runtime_error(fastrnn_status_text(status));
}

// One layer, one row; weights in PyTorch's order: weight_ih, weight_hh, bias_ih, bias_hh.
class Gru {
 public:
  Gru(int64_t inputs, int64_t units, int64_t block, std::span<const float> weights)
      : problem_(describe(inputs, units, block)),
        sizes_(plan(problem_)),
        packed_(sizes_.packed),
        workspace_(sizes_.forward_workspace),
        h_(static_cast<size_t>(units)) {
    if (static_cast<int64_t>(weights.size()) != sizes_.weights)
      throw std::runtime_error("weights: not as many as the layer has");
    check(fastrnn_pack(&problem_, weights.data(), packed_.get(), nullptr));
  }

  // x [T,I] -> y [T,H]; T at most `block`. Allocates nothing.
  void run(std::span<const float> x, std::span<float> y) {
    fastrnn_problem problem = problem_;
    problem.T = static_cast<int64_t>(x.size()) / problem.I;
    if (problem.T > problem_.T || static_cast<int64_t>(y.size()) != problem.T * problem.H)
      throw std::runtime_error("x and y are not of one length");
    fastrnn_forward_args args{};
    args.struct_size = sizeof args;
    args.packed = packed_.get();
    args.x = x.data();
    args.x_t = args.x_n = problem.I;
    args.y = y.data();
    args.y_t = args.y_n = problem.H;
    args.h0 = args.hn = h_.data();  // read first, written last
    args.workspace = workspace_.get();
    check(fastrnn_forward(&problem, &args));
  }

 private:
  static fastrnn_problem describe(int64_t inputs, int64_t units, int64_t block) {
    fastrnn_problem p{};
    p.struct_size = sizeof p;
    p.cell = FASTRNN_GRU;
    p.dtype = FASTRNN_F32;
    p.T = block;
    p.N = p.L = p.D = p.bias = 1;
    p.I = inputs;
    p.H = units;
    p.isa = -1;  // the best this processor can run
    return p;
  }
  static fastrnn_sizes plan(const fastrnn_problem& problem) {
    fastrnn_sizes sizes{};
    sizes.struct_size = sizeof sizes;
    check(fastrnn_plan(&problem, &sizes));
    return sizes;
  }

  fastrnn_problem problem_;
  fastrnn_sizes sizes_;
  Block packed_, workspace_;
  std::vector<float> h_;
};

}  // namespace

int main() try {
  const int64_t I = 2, H = 8, T = 96, block = 32;
  std::vector<float> weights(3 * H * (I + H + 2)), x(T * I), whole(T * H), parts(T * H);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = 0.01f * static_cast<float>(i % 37) - 0.18f;
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 11) - 5.0f;

  Gru(I, H, T, weights).run(x, whole);
  Gru gru(I, H, block, weights);
  for (int64_t t = 0; t < T; t += block) {
    gru.run(std::span(x).subspan(t * I, block * I), std::span(parts).subspan(t * H, block * H));
  }
  const bool same = whole == parts;  // bit for bit: a row's result does not depend on how it is cut
  std::printf("fastrnn %s, y[T-1][0] = %.6f, in blocks %s\n", fastrnn_version(),
              whole[(T - 1) * H], same ? "the same" : "another");
  return same ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
