/* What the kernel works on: a problem and its prices, as native.py describes them, and the context of one search. */
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DIMS = 8, ARRAYS = 6, LEVELS = ARRAYS + 1, CROSSINGS = 64, HOLDERS = 8, POOLS = 6, SLOTS = 4, AXES = 40 };
enum { WORDS = 32, INPUT = 1, OUTPUT = 2, MAX_LENGTH = 128, STAGES = 8192, EDGES = 65536, WINDOWS = 4, LINES = 24 };
enum { SUMS = 6, TABLES = 16, LANES = 16, SIDE = 8 }; /* tables of one machine, of a box of machines; lanes at most, of one machine */
enum { GROWN = 3 }; /* added to the operand of `Stage.carried` */
/* Edges and actions are two things. An edge joins stages, is the same at all points, and says what settles: a crossing
 * or, as one of these, none. An action is what Python reads of a path: a step along an axis, which is no edge, or one
 * of these added to the crossing or array it is about. */
enum { PASSED = -1, GROWS = -2, TURNS = -3, LEAVES = -4 };
enum { SETTLE = 1000, PASS = 2000, LEAVE = 3000, NOTHING = 4000, PATH = 4096 }; /* PATH: the most actions */
enum { FOUND, NONE_BELOW, GAVE_UP, TOO_LARGE, NO_MEMORY };         /* how a search for a path ends */
enum { COST, ENERGY, TIME, MIXED }; /* what a table of prices adds up to */
enum { REGIONS = 8, MEMORIES = 16, FIXED = 8, KEPT = 4, GUARDS = 8192 };
enum { FREE, EXACTLY, AT_MOST, ALL_LEFT }; /* how often the loops of a dim may run in a region */

typedef struct {
    int32_t operand, child, parent, inner, outer; /* holders counted from 1, the MAC is 0; arrays inside both */
    int32_t forgets, latch, pool;                 /* a MAC without a latch; one with; shared memory or -1 */
    int32_t tiled, least[DIMS], most[DIMS];       /* whether extents of the child's tile are limited; most 0: not */
    double capacity, bits, finished, word; /* bits of an element, and of one in a tile of finished outputs only */
} Crossing;

/* Linear prices of crossings: per element at a level, part of it divided by the instances inside which a memory works
 * (`shared[g]`: g arrays are inside them; LEVELS: not divided). */
typedef struct {
    int32_t kind, unused;
    double energy, time; /* MIXED: weights with which energy and time are added up */
    double price[CROSSINGS][LEVELS + 1][LEVELS], constant[CROSSINGS][LEVELS + 1];
} Table;

/* Loops under a rule: all inside an array, or those that a memory is the innermost one around. Which dims may run at
 * every turn, how often; `fixed`: how often they run further in, where rules say so (0: all that is left); else `kept`
 * names dims whose extents on the way in a stage remembers, `sizes`: how many there may be. */
typedef struct {
    int32_t k, memory; /* arrays inside; depth of the memory, -1: an array's */
    int32_t turns, turn[DIMS + 1], kind[DIMS], most[DIMS], fixes[DIMS], fixed[DIMS][FIXED], kept[KEPT], sizes[KEPT];
} Region;

typedef struct {
    int32_t dims, arrays, crossings, pools, ranks, remainders, regions;
    int32_t extent[DIMS], relevant[3], latched[3], holders[3];
    int32_t segment[3][HOLDERS], depth[3][HOLDERS]; /* of a holder: arrays inside; memories inside */
    int32_t rank_dim[2][2], coefficient[2][2];
    double pool_bits[POOLS];
    Crossing crossing[CROSSINGS];
    Region region[REGIONS];
} Problem;

typedef struct {
    int32_t k, pos[3], carried, moves, first, edges, final, waits; /* waits: for a MAC that keeps nothing */
    int32_t left, around; /* an operand reused outside memories that it has not settled in, or -1; its holder around the
                             loops here, 0: as its place says */
    int32_t level, region, turn, entry[KEPT], end; /* depth of the memory around its loops; their region or -1;
                                                      the guard of a path that ends here, or -1 */
} Stage;

typedef struct {
    int32_t crossing, target, guard; /* crossing, PASSED, GROWS, TURNS or LEAVES; guard or -1 */
} Edge;

/* What must hold where a path leaves a region, skips some (bits) and enters another one; -1: none. */
typedef struct {
    int32_t leaves, left[KEPT], skips, enters, entered[KEPT];
} Guard;

typedef struct {
    uint64_t a, b;
    double value;
} Memo;

/* A sum over x, the iterations of loops that do not see the input: slope * x + base. */
typedef struct {
    double slope, base;
} Line;

typedef struct {
    int count;
    Line line[LINES];
} Lines;

typedef struct {
    int32_t dim, prime, stride, length, inner; /* inner: stride within the dim's own sizes */
} Axis;

typedef struct {
    double spent[TABLES]; /* since the start */
    int32_t stage, point, parent, action, next, done, broken, slot[SLOTS]; /* broken: see `settles_finished` */
    double used[POOLS];
} Node;

typedef struct {
    int64_t rank;
    int32_t depth, node;
} Entry;

/* How the loops outside a cut tile move it. All extents are in units of the child (times what is inside it), so that
 * equal geometries are met again under other unrollings. */
typedef struct {
    int first, arrays, level; /* arrays inside the child; all arrays; the level counted */
    int step[WINDOWS], between[LEVELS][WINDOWS], count[ARRAYS][WINDOWS], apart[ARRAYS][WINDOWS], whole[WINDOWS];
    /* between[k]: product of the arrays first..k-1; count and apart of array j; whole: all temporal iterations */
    int pinned[ARRAYS][WINDOWS];
    int uneven, spread[WINDOWS], real[WINDOWS]; /* dims (bits) that an array does not divide: the array, their bound */
    uint64_t a, b;                              /* hash of all this */
    uint64_t rank[2][2];                        /* hashes of what concerns one rank of uneven dims */
} Geometry;

typedef struct {
    Problem p;
    Stage stage[STAGES];
    Edge edge[EDGES];
    Guard guard[GUARDS];
    int32_t guards;
    uint8_t *gate; /* [guard][point][lane]: whether it opens */
    int64_t gate_room;
    int32_t order[STAGES], stages, edges;
    int32_t window[WINDOWS], windows, in_rank[DIMS]; /* window dims; 1 + 2 * rank + term of a dim, 0: none */
    Memo *memo;
    uint64_t memo_size, memo_used;
    int32_t lost;      /* windows that an unrolling does not divide over too many elements to be counted */
    double last_reuse; /* most iterations of the loops that do not see the input */
    Line *line;        /* stored families: a line that holds their number, then the lines */
    int64_t lines, line_room;
    /* the row at hand */
    int32_t spatial[ARRAYS][DIMS], spacing[ARRAYS][DIMS], inside[LEVELS][DIMS], temporal[DIMS];
    int32_t length[DIMS], size[DIMS][MAX_LENGTH], stride[DIMS], points, point_room;
    /* of a dim, array elements outside the level apart, by its size: those with work, and as if all had */
    double blocks[LEVELS][DIMS][MAX_LENGTH], full[LEVELS][DIMS][MAX_LENGTH];
    double held[LEVELS][DIMS][MAX_LENGTH]; /* extent of a tile inside the level */
    double outside[3][LEVELS], all[3][LEVELS]; /* the same per operand once all time has passed */
    int32_t uneven[LEVELS];                    /* dims that the unrolling of the arrays passed does not divide */
    Axis axis[AXES];
    int32_t axes;
    uint8_t *coord; /* [point][dim] */
    uint8_t *reduced;          /* [point]: no loop that adds to outputs is left outside it */
    int32_t finishes[CROSSINGS], tracks; /* crossings whose child may receive nothing but finished outputs; any of them */
    int32_t tables; /* in use */
    Table table[TABLES];
    /* Several unrollings of one lattice shape, or several tables, are solved side by side: one lane each. */
    int32_t lanes, pinned[ARRAYS];
    double *cost[CROSSINGS], *grown[CROSSINGS][LEVELS]; /* [point][lane]; grown: carried there by a stage + GROWN */
    double *blocked[ARRAYS];                            /* infinite where an array may not be passed */
    int64_t grown_room[CROSSINGS][LEVELS];
    double *bound; /* [stage][point][lane] */
    int64_t bound_room;
    Geometry geometry[CROSSINGS][LEVELS];
    double weight[TABLES][CROSSINGS][LEVELS], constant[TABLES][CROSSINGS];
    double *fills; /* [level][point]: fewest points of a window crossing */
    double *elements, *reused, *priced; /* [point]: of the crossing at hand, at the level at hand */
    /* the exact path */
    Node *node;
    int64_t nodes, node_room;
    Entry *heap;
    int64_t heaped, heap_room;
    int32_t *hash;
    int64_t hash_size;
    void *scratch; /* of a call */
} Context;

/* Where a call from outside goes back to when there is no memory: it returns NO_MEMORY, and the context is of no use but to
 * be closed. Every block that is alive hangs on the context, so nothing is lost. */
static _Thread_local jmp_buf *rescue;

#ifdef DEBUG_KERNEL
#include <assert.h>
static int64_t blocks_left = INT64_MAX; /* tests let allocations fail */
static int has_memory(void) { return blocks_left-- > 0; }
#else
#define assert(claim) ((void)0)
static int has_memory(void) { return 1; }
#endif

static void *kept(void *found) {
    if (!found) longjmp(*rescue, 1);
    return found;
}

/* The block at *old made larger, and *old led to it; *old stays as it is where there is no memory. */
static void *room(void *old, size_t bytes) { return kept(has_memory() ? realloc(old, bytes) : 0); }

static inline double smaller(double a, double b) { return a < b ? a : b; }
static inline double larger(double a, double b) { return a > b ? a : b; }

/* ---- memo of window tables: two independent 64-bit hashes of the whole question ----------------------------------- */

typedef struct {
    uint64_t a, b;
} Hash;

static inline void feed(Hash *h, int64_t value) {
    h->a = (h->a ^ (uint64_t)value) * 0x9E3779B97F4A7C15ull;
    h->a ^= h->a >> 29;
    h->b = (h->b + (uint64_t)value + 0x7F4A7C15ull) * 0xC2B2AE3D27D4EB4Full;
    h->b ^= h->b >> 31;
}

static int64_t memo_find(const Context *c, Hash h) {
    uint64_t i = h.a & (c->memo_size - 1);
    while (c->memo[i].a && !(c->memo[i].a == h.a && c->memo[i].b == h.b)) i = (i + 1) & (c->memo_size - 1);
    return (int64_t)i;
}

static double *memo_get(Context *c, Hash *h) {
    h->a |= 1;
    Memo *m = &c->memo[memo_find(c, *h)];
    return m->a ? &m->value : 0;
}

static void memo_put(Context *c, Hash h, double value) {
    if (c->memo_used * 2 > c->memo_size) {
        Memo *old = c->memo;
        const uint64_t size = c->memo_size;
        c->memo = kept(has_memory() ? calloc(4 * size, sizeof(Memo)) : 0);
        c->memo_size = 4 * size;
        for (uint64_t i = 0; i < size; i++)
            if (old[i].a) c->memo[memo_find(c, (Hash){old[i].a, old[i].b})] = old[i];
        free(old);
    }
    assert(h.a & 1); /* 0 says that a place is empty */
    c->memo[memo_find(c, h)] = (Memo){h.a, h.b, value};
    c->memo_used++;
}
