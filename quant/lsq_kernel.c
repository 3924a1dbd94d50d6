/* LSQ+ Eq. 2-4 on float32, one pass over memory each way: forward reads x and writes x_hat, backward reads x and the
 * gradient and writes dx. Nothing is saved between them. Each operation is rounded once (no contraction to fused
 * multiply-add, true division), so the results have the bits of the plain torch expression.
 *
 * x is (rows, columns), contiguous; s and beta hold one value per row (beta may be null: no offset).
 * Sums are formed per block of BLOCK elements, which do not depend on the number of threads, and the caller adds the
 * blocks in order: the gradients of s and beta are the same for any number of threads. */
#include <math.h>
#include <stdint.h>

enum { BLOCK = 4096 };

static inline float clamp(float v, float n, float p) {
    v = v < n ? n : v; /* comparisons with NaN are false: NaN passes */
    return v > p ? p : v;
}

int64_t lsq_blocks(int64_t columns) { return (columns + BLOCK - 1) / BLOCK; }

void lsq_forward(const float *x, float *x_hat, int64_t rows, int64_t columns, const float *s, const float *beta,
                 float n, float p, int threads) {
    const int64_t per_row = lsq_blocks(columns);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < rows * per_row; block++) {
        const int64_t row = block / per_row, first = block % per_row * BLOCK;
        const int64_t count = columns - first < BLOCK ? columns - first : BLOCK;
        const float *restrict in = x + row * columns + first;
        float *restrict out = x_hat + row * columns + first;
        const float step = s[row];
        if (beta) {
            const float offset = beta[row];
#pragma omp simd
            for (int64_t i = 0; i < count; i++) out[i] = rintf(clamp((in[i] - offset) / step, n, p)) * step + offset;
        } else {
#pragma omp simd
            for (int64_t i = 0; i < count; i++) out[i] = rintf(clamp(in[i] / step, n, p)) * step;
        }
    }
}

void lsq_backward(const float *x, const float *grad, float *dx, int64_t rows, int64_t columns, const float *s,
                  const float *beta, float n, float p, int inclusive, double *ds, double *dbeta, int threads) {
    const int64_t per_row = lsq_blocks(columns);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < rows * per_row; block++) {
        const int64_t row = block / per_row, first = block % per_row * BLOCK;
        const int64_t count = columns - first < BLOCK ? columns - first : BLOCK;
        const float *restrict in = x + row * columns + first, *restrict g = grad + row * columns + first;
        float *restrict out = dx + row * columns + first;
        const float step = s[row], offset = beta ? beta[row] : 0.0f;
        /* Clipped means v <= n or v >= p (strict) or v < n or v > p; the same comparison with moved bounds. */
        const float low = inclusive ? nextafterf(n, -INFINITY) : n, high = inclusive ? nextafterf(p, INFINITY) : p;
        float sum_s = 0.0f, sum_beta = 0.0f;
#pragma omp simd reduction(+ : sum_s, sum_beta)
        for (int64_t i = 0; i < count; i++) {
            const float v = (in[i] - offset) / step, code = rintf(clamp(v, n, p));
            const int clipped = v <= low || v >= high;
            const float passed = clipped ? 0.0f : g[i];
            out[i] = passed;
            sum_s += g[i] * (clipped ? code : code - v);
            sum_beta += g[i] - passed;
        }
        ds[block] = sum_s;
        dbeta[block] = sum_beta;
    }
}
