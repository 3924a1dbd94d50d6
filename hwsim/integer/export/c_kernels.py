"""The C text that every exported network shares: arithmetic helpers, the convolution, the optional main program."""

from __future__ import annotations

HEADER = """/* {name}: an integer neural network in C99, written by hwsim. No dependencies, no floating point.
 *
 * Input: {inputs} codes in {n}..{p}, channels first; a code c stands for s*c + beta with s = {s}, beta = {beta}.
 * Result: {results} numbers with {bits} fractional bits. Weights: {weights} bytes when packed. Memory: {memory} bytes.
 * gcc -std=c99 -O3 -DHWSIM_MAIN FILE -o PROGRAM; ./PROGRAM [TRACE] < codes > results
 */
#include <stdint.h>
#include <string.h>

#define {upper}_INPUTS {inputs}
#define {upper}_RESULTS {results}
#define {upper}_FRACTION_BITS {bits}

static int64_t arena64[{arena} / 8 + 1];
static uint8_t *const arena = (uint8_t *)arena64;

#ifdef HWSIM_MAIN
#include <stdio.h>
static FILE *trace_file;
static void trace(const void *data, long bytes) {{ if (trace_file) fwrite(data, 1, (size_t)bytes, trace_file); }}
#define TRACE(name, data, count) trace(data, (long)(count) * (long)sizeof(*(data)))
#else
#define TRACE(name, data, count)
#endif"""

FUNCTIONS = """/* Shift right, rounding down, whatever the compiler does with negative numbers. */
static int64_t asr(int64_t v, int s) { return v >= 0 ? v >> s : ~(~v >> s); }

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

/* clamp((a*M + N) >> F): equal to the exact requantization for every accumulator this layer can reach. */
static inline int64_t affine(int64_t a, int64_t m, int64_t n, int f, int64_t low, int64_t high)
{
    return clamp(asr(a * m + n, f), low, high);
}

/* The level behind the last threshold not above a. */
static inline int64_t steps(int64_t a, const int64_t *marks, int count, const int16_t *levels)
{
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (a >= marks[middle]) low = middle + 1; else high = middle;
    }
    return levels[low];
}

/* u * m / 2^24 without overflow. */
static inline int64_t scaled(int64_t u, int64_t m)
{
    return asr(u, 24) * m + asr((u & 0xffffff) * m + 0x800000, 24);
}"""

_CONVOLUTION = """/* Sums over the window, a row of outputs at a time, so that a compiler can use vectors.
 * g: groups, C, H, W, K per group, P, Q, R, S, stride, dilation (2 each), top, left, pad code. */
static void NAME(const INPUT *restrict x, const WEIGHT *restrict w, SUM *restrict y, const int *g)
{
    const int c_in = g[1], h = g[2], wd = g[3], k_out = g[4], kr = g[7], ks = g[8], step = g[10], pad = g[15];
    const int bare = g[13] == 0 && g[14] == 0; /* no border above, none at the left */
    const int whole = kr == 1 && ks == 1 && g[9] == 1 && step == 1 && bare && g[5] == h && g[6] == wd;
    const int rows = whole ? 1 : g[5], columns = whole ? h * wd : g[6]; /* 1 x 1: the plane is one row */
    const int width = whole ? h * wd : wd, taps = c_in * kr * ks;
    const int dense = (kr == 1 || g[11] == 1) && (ks == 1 || g[12] == 1);
    if (rows == 1 && columns == 1 && h == kr && wd == ks && dense && bare) { /* all of it at once */
        for (int k = 0; k < g[0] * k_out; k++) {
            const INPUT *from = x + (long)(k / k_out) * taps;
            const WEIGHT *wk = w + (long)k * taps;
            SUM sum = 0;
            for (int i = 0; i < taps; i++) sum += (SUM)wk[i] * (SUM)from[i];
            y[k] = sum;
        }
        return;
    }
    for (int k = 0; k < g[0] * k_out; k++) {
        const INPUT *plane = x + (long)(k / k_out) * c_in * h * wd;
        const WEIGHT *wk = w + (long)k * taps;
        for (int p = 0; p < rows; p++) {
            SUM *out = y + ((long)k * rows + p) * columns;
            for (int q = 0; q < columns; q++) out[q] = 0;
            for (int t = 0; t < taps; t++) {
                const int s = t % ks, r = t / ks % kr, i = p * g[9] - g[13] + r * g[11], j = s * g[12] - g[14];
                const SUM one = (SUM)wk[t];
                int low = j < 0 ? (step - 1 - j) / step : 0, high = width > j ? (width - j + step - 1) / step : 0;
                if (high > columns) high = columns;
                if (i < 0 || i >= h || high < low) low = high = columns;
                if (pad) {
                    for (int q = 0; q < low; q++) out[q] += one * (SUM)pad;
                    for (int q = high; q < columns; q++) out[q] += one * (SUM)pad;
                }
                if (low == high) continue;
                const INPUT *from = plane + (long)(t / (kr * ks)) * h * wd + (long)i * wd + j;
                if (step == 1) for (int q = low; q < high; q++) out[q] += one * (SUM)from[q];
                else for (int q = low; q < high; q++) out[q] += one * (SUM)from[q * step];
            }
        }
    }
}"""

_WINDOWS = """enum { PLACES = COUNT };
static int16_t windows[(PLACES + 1) * MOST_TAPS]; /* and one row of weights */

/* The sum of n products; compilers make one instruction of several pairs of int16. */
static int32_t dot(const int16_t *a, const int16_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}"""

_MANY = """/* The window of output place p, q in one group's planes, channel by channel; outside is the pad code. */
static void window_INPUT(const INPUT *plane, int16_t *out, int p, int q, const int *g)
{
    const int h = g[2], wd = g[3], kr = g[7], ks = g[8], top = p * g[9] - g[13], left = q * g[10] - g[14];
    const int inside = top >= 0 && left >= 0 && top + (kr - 1) * g[11] < h && left + (ks - 1) * g[12] < wd;
    for (int c = 0; c < g[1]; c++, plane += (long)h * wd) {
        for (int r = 0; r < kr; r++) {
            const int i = top + r * g[11];
            if (inside) for (int s = 0; s < ks; s++) *out++ = plane[(long)i * wd + left + s * g[12]];
            else for (int s = 0; s < ks; s++) {
                const int j = left + s * g[12];
                *out++ = i >= 0 && j >= 0 && i < h && j < wd ? plane[(long)i * wd + j] : g[15];
            }
        }
    }
}

/* Sums over the window where a group has several outputs: PLACES windows at a time, each meets every row of weights. */
static void NAME(const INPUT *x, const int8_t *w, int32_t *y, const int *g)
{
    const int taps = g[1] * g[7] * g[8], places = g[5] * g[6];
    int16_t *const row = windows + PLACES * taps;
    for (int group = 0; group < g[0]; group++) {
        const INPUT *planes = x + (long)group * g[1] * g[2] * g[3];
        for (int first = 0; first < places; first += PLACES) {
            const int count = places - first < PLACES ? places - first : PLACES;
            for (int b = 0; b < count; b++)
                window_INPUT(planes, windows + b * taps, (first + b) / g[6], (first + b) % g[6], g);
            for (int k = group * g[4]; k < (group + 1) * g[4]; k++) {
                for (int i = 0; i < taps; i++) row[i] = w[(long)k * taps + i];
                for (int b = 0; b < count; b++) y[(long)k * places + first + b] = dot(windows + b * taps, row, taps);
            }
        }
    }
}"""

_SMOOTH = """/* NAME in fixed point: polynomials of degree 2 on intervals of 1/256, u, 0 or 1 beyond 32. */
static int64_t FUNCTION(int64_t u)
{
    const int64_t edge = INT64_C(32) << SHIFT;
    if (u >= edge) return BEYOND;
    if (u < -edge) return BEFORE;
    const int64_t *c = TABLE + 3 * ((u + edge) >> FRACTION);
    const int64_t d = (u + edge) & ((INT64_C(1) << FRACTION) - 1), half = INT64_C(1) << (FRACTION - 1);
    return c[0] + asr((c[1] + asr(c[2] * d + half, FRACTION)) * d + half, FRACTION);
}"""

MAIN = """#ifdef HWSIM_MAIN
#include <time.h>
int main(int argc, char **argv)
{{
    static {type} input[{upper}_INPUTS];
    static int64_t result[{upper}_RESULTS];
    long images = 0;
    clock_t used = 0;
    if (argc > 1 && !(trace_file = fopen(argv[1], "wb"))) return 1;
    while (fread(input, sizeof *input, {upper}_INPUTS, stdin) == {upper}_INPUTS) {{
        clock_t start = clock();
        {name}_run(input, result);
        used += clock() - start;
        fwrite(result, sizeof *result, {upper}_RESULTS, stdout);
        images++;
    }}
    if (trace_file) fclose(trace_file);
    fprintf(stderr, "%ld images, %.3f ms each\\n", images, images ? 1e3 * used / CLOCKS_PER_SEC / images : 0.0);
    return 0;
}}
#endif"""


def convolution(name: str, x: str, w: str, accumulator: str) -> str:
    """The convolution for one combination of types."""
    text = _CONVOLUTION
    for word, value in (("NAME", name), ("INPUT", x), ("WEIGHT", w), ("SUM", accumulator)):
        text = text.replace(word, value)
    return text


PLACES = 8  # windows that meet a row of weights at a time


def windows(most_taps: int) -> str:
    """Room for PLACES windows of so many products and one row of weights, and their products' sum."""
    return _WINDOWS.replace("COUNT", str(PLACES)).replace("MOST_TAPS", str(most_taps))


def windows_bytes(most_taps: int) -> int:
    """Memory of that room."""
    return 2 * (PLACES + 1) * most_taps


def convolution_of_many(name: str, x: str) -> str:
    """The convolution of int8 weights and 8-bit codes into int32, for groups of several outputs."""
    return _MANY.replace("window_INPUT", f"window_{x.removesuffix('_t')}").replace("NAME", name).replace("INPUT", x)


def smooth_function(function: str, name: str, table: str, shift: int) -> str:
    """A smooth function with `shift` fractional bits on its table of coefficients."""
    one = f"(INT64_C(1) << {shift})"
    beyond = one if name in ("sigmoid", "tanh") else "u"
    before = f"-{one}" if name == "tanh" else "0"
    text = _SMOOTH.replace("FUNCTION", function).replace("NAME", name).replace("TABLE", table)
    text = text.replace("FRACTION", str(shift - 8)).replace("SHIFT", str(shift))
    return text.replace("BEYOND", beyond).replace("BEFORE", before)
