/* LSQ+ Eq. 2-4 on float32, one pass over memory each way: forward reads x and writes x_hat, backward reads x and the
 * gradient and writes dx. Nothing is saved between them. Each operation is rounded once (no contraction to fused
 * multiply-add, true division), so the results have the bits of the plain torch expression.
 *
 * x is (rows, columns), contiguous; s and beta hold one value per row. beta may be null: no offset. absolute: s counts as
 * |s|, and its gradient has the sign of s. border: 0 gives x_hat; 1 and 2 give x_hat - c and c, the value around a padded map: c is quant(0) for
 * 1 and beta (code 0) for 2.
 * Sums are formed per block of BLOCK elements, which do not depend on the number of threads, and added in order: the
 * gradients of s and beta are the same for any number of threads. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { BLOCK = 4096, SUMS = 3 };

static inline float clamp(float v, float n, float p) {
    v = v < n ? n : v; /* comparisons with NaN are false: NaN passes */
    return v > p ? p : v;
}

static inline float step_of(const float *s, int absolute, int64_t row) {
    return absolute ? fabsf(s[row]) : s[row];
}

static inline float border_code(int border, float step, float offset, float n, float p) {
    return border == 1 ? rintf(clamp((0.0f - offset) / step, n, p)) : 0.0f;
}

void lsq_forward(const float *x, float *x_hat, int64_t rows, int64_t columns, const float *s, int absolute,
                 const float *beta, float n, float p, int border, float *border_value, int threads) {
    const int64_t per_row = (columns + BLOCK - 1) / BLOCK;
    if (border) {
        const float step = step_of(s, absolute, 0);
        *border_value = border_code(border, step, beta[0], n, p) * step + beta[0];
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < rows * per_row; block++) {
        const int64_t row = block / per_row, first = block % per_row * BLOCK;
        const int64_t count = columns - first < BLOCK ? columns - first : BLOCK;
        const float *restrict in = x + row * columns + first;
        float *restrict out = x_hat + row * columns + first;
        const float step = step_of(s, absolute, row), offset = beta ? beta[row] : 0.0f;
        if (border) {
            const float zero = border_code(border, step, offset, n, p);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) out[i] = (rintf(clamp((in[i] - offset) / step, n, p)) - zero) * step;
        } else if (beta) {
#pragma omp simd
            for (int64_t i = 0; i < count; i++) out[i] = rintf(clamp((in[i] - offset) / step, n, p)) * step + offset;
        } else {
#pragma omp simd
            for (int64_t i = 0; i < count; i++) out[i] = rintf(clamp(in[i] / step, n, p)) * step;
        }
    }
}

/* Clipped means v <= n or v >= p (strict), or v < n or v > p. The rule is a constant of each caller, so that the loop has
 * no branch; bounds moved to their neighbours would be subnormal at n = 0 and equal to it under flush-to-zero. */
static inline void backward_block(const float *restrict in, const float *restrict g, float *restrict out, int64_t count,
                           float step, float offset, float n, float p, int inclusive, double *restrict sums) {
    float sum_s = 0.0f, sum_clipped = 0.0f, sum_all = 0.0f;
#pragma omp simd reduction(+ : sum_s, sum_clipped, sum_all)
    for (int64_t i = 0; i < count; i++) {
        const float v = (in[i] - offset) / step, code = rintf(clamp(v, n, p));
        const int clipped = inclusive ? v < n || v > p : v <= n || v >= p;
        const float passed = clipped ? 0.0f : g[i];
        out[i] = passed;
        sum_s += g[i] * (clipped ? code : code - v);
        sum_clipped += g[i] - passed;
        sum_all += g[i];
    }
    sums[0] = sum_s, sums[1] = sum_clipped, sums[2] = sum_all;
}

/* Returns 0, or 1 when memory for the partial sums is missing. dbeta may be null. grad_border: the gradient of c. */
int lsq_backward(const float *x, const float *grad, float *dx, int64_t rows, int64_t columns, const float *s,
                 int absolute, const float *beta, float n, float p, int inclusive, int border,
                 const float *grad_border, double grad_scale, float *ds, float *dbeta, int threads) {
    const int64_t per_row = (columns + BLOCK - 1) / BLOCK, blocks = rows * per_row;
    double *sums = malloc((size_t)blocks * SUMS * sizeof *sums);
    if (!sums) return 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t row = block / per_row, first = block % per_row * BLOCK, at = row * columns + first;
        const int64_t count = columns - first < BLOCK ? columns - first : BLOCK;
        const float step = step_of(s, absolute, row), offset = beta ? beta[row] : 0.0f;
        if (inclusive) backward_block(x + at, grad + at, dx + at, count, step, offset, n, p, 1, sums + block * SUMS);
        else backward_block(x + at, grad + at, dx + at, count, step, offset, n, p, 0, sums + block * SUMS);
    }
    for (int64_t row = 0; row < rows; row++) {
        double total[SUMS] = {0.0, 0.0, 0.0};
        for (int64_t block = row * per_row; block < (row + 1) * per_row; block++)
            for (int k = 0; k < SUMS; k++) total[k] += sums[block * SUMS + k];
        if (border) {
            /* x_hat - c: c takes back what the gradients of x_hat count, and has a gradient of its own. */
            const float step = step_of(s, absolute, row), v = (0.0f - beta[row]) / step;
            const float code = border_code(border, step, beta[row], n, p);
            const int clipped = inclusive ? v < n || v > p : v <= n || v >= p;
            const double rest = (double)*grad_border - total[2];
            if (border == 1) total[0] += rest * (clipped ? code : code - v);
            if (border == 2 || clipped) total[1] += rest;
        }
        ds[row] = (float)((absolute && s[row] < 0.0f ? -total[0] : total[0]) * grad_scale);
        if (dbeta) dbeta[row] = (float)(total[1] * grad_scale);
    }
    free(sums);
    return 0;
}
