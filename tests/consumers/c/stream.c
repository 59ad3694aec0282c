/* stream WEIGHTS < samples > outputs: an LSTM of one layer, a sample in and its hidden units out, one step at a time.
 *
 * WEIGHTS: int64 I, int64 H, then float32 weight_ih [4H,I], weight_hh [4H,H], bias_ih [4H], bias_hh [4H], as PyTorch has them.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>

#include "fastrnn/fastrnn.h"

static void* block(int64_t bytes) { /* on a 64-byte boundary */
  void* p = NULL;
  return posix_memalign(&p, 64, bytes > 0 ? (size_t)bytes : 64) == 0 ? p : NULL;
}

static int fail(const char* why) {
  fprintf(stderr, "stream: %s\n", why);
  return 1;
}

int main(int count, char** arguments) {
  FILE* file = count == 2 ? fopen(arguments[1], "rb") : NULL;
  int64_t shape[2];
  if (file == NULL || fread(shape, sizeof shape, 1, file) != 1) return fail("no file of weights");

  fastrnn_problem problem = {.struct_size = sizeof problem, .cell = FASTRNN_LSTM, .dtype = FASTRNN_F32, .T = 1,
                             .N = 1, .I = shape[0], .H = shape[1], .L = 1, .D = 1, .bias = 1, .isa = -1};
  fastrnn_sizes sizes = {.struct_size = sizeof sizes};
  fastrnn_status status = fastrnn_plan(&problem, &sizes);
  if (status != FASTRNN_OK) return fail(fastrnn_status_text(status));

  float* weights = malloc((size_t)sizes.weights * sizeof(float));
  if (weights == NULL || fread(weights, sizeof(float), (size_t)sizes.weights, file) != (size_t)sizes.weights)
    return fail("the file ends too early");
  fclose(file);

  void *packed = block(sizes.packed), *workspace = block(sizes.forward_workspace);
  float *x = calloc((size_t)problem.I, sizeof *x), *y = calloc((size_t)problem.H, sizeof *y);
  float *h = calloc((size_t)problem.H, sizeof *h), *c = calloc((size_t)problem.H, sizeof *c);
  if (!packed || !workspace || !x || !y || !h || !c) return fail("out of memory");
  status = fastrnn_pack(&problem, weights, packed, NULL);
  if (status != FASTRNN_OK) return fail(fastrnn_status_text(status));
  free(weights); /* packed has its own copy */

  fastrnn_stepper stepper; /* all that is the same at every step, worked out once */
  status = fastrnn_make_stepper(&problem, &stepper);
  const fastrnn_step_args step = {.struct_size = sizeof step, .packed = packed, .x = x, .x_n = problem.I, .y = y,
                                  .y_n = problem.H, .h = h, .c = c, .workspace = workspace};
  while (status == FASTRNN_OK && fread(x, sizeof *x, (size_t)problem.I, stdin) == (size_t)problem.I) {
    status = fastrnn_step(&stepper, &step); /* allocates nothing */
    fwrite(y, sizeof *y, (size_t)problem.H, stdout);
  }
  free(packed), free(workspace), free(x), free(y), free(h), free(c);
  return status == FASTRNN_OK ? 0 : fail(fastrnn_status_text(status));
}
