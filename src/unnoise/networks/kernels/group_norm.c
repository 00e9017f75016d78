/* Group normalisation, scale and shift a picture, and SiLU in one visit of channels-last memory.

   y[b,n,c] = act(xhat * weight[b,c] + bias[b,c]),  xhat = (x - mean[b,g]) * rstd[b,g],  act = SiLU or identity

   x is (B, N, C) with contiguous channels, float32 or bfloat16; all else is float32. A picture fits a core's cache, so
   the passes over it read main memory once. Loops over channels are what the compiler vectorises. Sums run in blocks
   of BLOCK pixels and are joined in double; their order never depends on the number of threads. They are sums of
   differences from the first pixel and from the mean: activations whose mean is 100 times their spread are common.

   The functions of one element type are in group_norm.inc, compiled once for each type. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 128
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

typedef uint16_t bfloat16;

static inline float as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t as_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

static inline float load_float32(float x) { return x; }
static inline float store_float32(float x) { return x; }
static inline float load_bfloat16(bfloat16 x) { return as_float((uint32_t)x << 16); }

/* To nearest, ties to even; NaN stays NaN. */
static inline bfloat16 store_bfloat16(float x)
{
    uint32_t u = as_bits(x);
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bfloat16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* exp(x) to two units in the last place, clamped to [-87, 88]; branch-free. NaN stays NaN. */
static inline float exp_(float x)
{
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float k = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* x / ln 2 to the nearest whole number */
    float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;   /* |r| <= ln 2 / 2 */
    float p = 1.9875691500e-4f;                              /* exp(r): Cephes' coefficients */
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * as_float((uint32_t)((int32_t)k + 127) << 23);
}

static inline float sigmoid(float z) { return 1.0f / (1.0f + exp_(-z)); }

/* Numbers a channel, of one thread. */
typedef struct { double *s, *t; float *a, *r, *u, *v; } Scratch;

static int scratch_new(Scratch *m, long C)
{
    m->s = malloc(C * (2 * sizeof(double) + 4 * sizeof(float)));
    if (!m->s) return 0;
    m->t = m->s + C;
    m->a = (float *)(m->t + C);
    m->r = m->a + C;
    m->u = m->r + C;
    m->v = m->u + C;
    return 1;
}

/* s[c]: from sums over N pixels to the mean over the group of c, D channels of N pixels. */
static void group_mean(double *s, long C, long D, long N)
{
    for (long g = 0; g < C; g += D) {
        double sum = 0;
        for (long c = g; c < g + D; c++) sum += s[c];
        for (long c = g; c < g + D; c++) s[c] = sum / ((double)N * D);
    }
}

/* Work is dealt by picture, and by slices of whole groups where there are fewer pictures than threads. */
static long slices(long B, long C, long G, int threads)
{
    long n = 1;
    while (B * n < threads && G % (2 * n) == 0 && C / (2 * n) >= 16) n *= 2;
    return n;
}

#define T float
#define NAME float32
#include "group_norm.inc"
#undef T
#undef NAME
#define T bfloat16
#define NAME bfloat16
#include "group_norm.inc"
