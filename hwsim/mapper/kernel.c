/* The inner loops of the certified search for one spatial unrolling: a lower bound on the energy of every path through
 * the lattice of tile sizes, and the cheapest path itself. Equations: docs/search.md; the Python side is native.py.
 *
 * A point is a vector of temporal extents. A stage says in which segment between two arrays the path is (k), which
 * holder of every operand settles next (pos, 0 is the MAC) and which operand is stationary above an array it was to settle
 * below (carried). Edges of a stage: a crossing settles, or the array of the segment is passed.
 *
 * Inputs whose windows overlap settle with the price of loading their whole tile at every step; what a step outside keeps
 * of the tile is a saving. The most that a path may save, the input being alone, makes the bound ("fills"); the exact
 * path carries the tiles that may still save something. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DIMS = 8, ARRAYS = 6, LEVELS = ARRAYS + 1, CROSSINGS = 64, HOLDERS = 8, POOLS = 6, SLOTS = 4, AXES = 40 };
enum { WORDS = 32, INPUT = 1, MAX_LENGTH = 128, STAGES = 4096, EDGES = 16384, WINDOWS = 4 };

typedef struct {
    int32_t operand, child, parent, inner, outer; /* holders counted from 1, the MAC is 0; arrays inside both */
    int32_t forgets, latch, pool;                 /* a MAC without a latch; one with; shared memory or -1 */
    double price[LEVELS], constant, capacity, bits, word;
} Crossing;

typedef struct {
    int32_t dims, arrays, crossings, pools, ranks, unused;
    int32_t extent[DIMS], relevant[3], latched[3], holders[3];
    int32_t segment[3][HOLDERS];
    int32_t rank_dim[2][2], coefficient[2][2];
    double pool_bits[POOLS];
    Crossing crossing[CROSSINGS];
} Problem;

typedef struct {
    int32_t k, pos[3], carried, moves, first, edges, final;
} Stage;

typedef struct {
    int32_t crossing, target; /* crossing -1: the array is passed */
} Edge;

typedef struct {
    uint64_t a, b;
    double value;
} Memo;

typedef struct {
    int32_t dim, prime, stride, length, inner; /* inner: stride within the dim's own sizes */
} Axis;

typedef struct {
    double energy; /* since the start */
    int32_t stage, point, parent, action, slot[SLOTS];
    double used[POOLS];
} Node;

typedef struct {
    int64_t rank;
    int32_t depth, node;
} Entry;

typedef struct {
    Problem p;
    Stage stage[STAGES];
    Edge edge[EDGES];
    int32_t order[STAGES], stages, edges;
    int32_t window[WINDOWS], windows, in_rank[DIMS]; /* window dims; 1 + 2 * rank + term of a dim, 0: none */
    Memo *memo;
    uint64_t memo_size, memo_used;
    /* the row at hand */
    int32_t spatial[ARRAYS][DIMS], spacing[ARRAYS][DIMS], inside[LEVELS][DIMS], temporal[DIMS];
    int32_t length[DIMS], size[DIMS][MAX_LENGTH], stride[DIMS], points, point_room;
    Axis axis[AXES];
    int32_t axes;
    uint8_t *coord; /* [point][dim] */
    double *cost[CROSSINGS];
    double *bound; /* [stage][point] */
    int64_t bound_room;
    double weight[CROSSINGS][LEVELS];
    /* the exact path */
    Node *node;
    int64_t nodes, node_room;
    Entry *heap;
    int64_t heaped, heap_room;
    int32_t *hash;
    int64_t hash_size;
} Context;

static void *room(void *old, size_t bytes) {
    void *found = realloc(old, bytes);
    if (!found) abort();
    return found;
}

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
        c->memo_size *= 4;
        c->memo = calloc(c->memo_size, sizeof(Memo));
        if (!c->memo) abort();
        for (uint64_t i = 0; i < size; i++)
            if (old[i].a) c->memo[memo_find(c, (Hash){old[i].a, old[i].b})] = old[i];
        free(old);
    }
    c->memo[memo_find(c, h)] = (Memo){h.a, h.b, value};
    c->memo_used++;
}

/* ---- stages ------------------------------------------------------------------------------------------------------- */

static int segment_of(const Problem *p, int x, int pos) { return pos ? p->segment[x][pos] : 0; }

static int stage_index(Context *c, Stage s) {
    for (int i = 0; i < c->stages; i++) {
        const Stage *o = &c->stage[i];
        if (o->k == s.k && o->carried == s.carried && !memcmp(o->pos, s.pos, sizeof s.pos)) return i;
    }
    if (c->stages == STAGES) return -1;
    c->stage[c->stages] = s;
    return c->stages++;
}

static int add_edge(Context *c, int from, int crossing, Stage target) {
    const int to = stage_index(c, target);
    if (to < 0 || c->edges == EDGES) return 0;
    c->edge[c->edges++] = (Edge){crossing, to};
    c->stage[from].edges++;
    return 1;
}

static int find_stages(Context *c) {
    const Problem *p = &c->p;
    const Stage start = {.k = 0, .carried = -1};
    stage_index(c, start);
    for (int i = 0; i < c->stages; i++) {
        Stage s = c->stage[i];
        int waiting = -1;
        for (int x = 2; x >= 0; x--)
            if (s.pos[x] == 0 && !p->latched[x]) waiting = x;
        int moves = waiting >= 0 ? 0 : (1 << p->dims) - 1;
        if (s.carried >= 0) moves &= ~p->relevant[s.carried];
        c->stage[i].moves = moves;
        c->stage[i].first = c->edges;
        c->stage[i].final = s.k == p->arrays && s.carried < 0;
        for (int x = 0; x < 3; x++)
            if (s.pos[x] != p->holders[x]) c->stage[i].final = 0;
        for (int r = 0; r < p->crossings; r++) {
            const Crossing *q = &p->crossing[r];
            const int x = q->operand;
            if ((waiting >= 0 && x != waiting) || q->child != s.pos[x] || q->inner > s.k) continue;
            Stage t = s;
            t.pos[x] = q->parent;
            if (s.carried == x && q->outer >= s.k) t.carried = -1;
            if (!add_edge(c, i, r, t)) return 0;
        }
        if (s.k < p->arrays) {
            int lacking = -1, many = 0;
            for (int x = 0; x < 3; x++)
                if (segment_of(p, x, s.pos[x]) <= s.k) lacking = x, many++;
            if (many > 1 || (many && s.carried >= 0 && s.carried != lacking)) continue;
            Stage t = s;
            t.k++;
            t.carried = lacking;
            if (!add_edge(c, i, -1, t)) return 0;
        }
    }
    int n = 0;
    for (int k = p->arrays; k >= 0; k--)
        for (int sum = 3 * HOLDERS; sum >= 0; sum--)
            for (int i = 0; i < c->stages; i++) {
                const Stage *s = &c->stage[i];
                if (s->k == k && s->pos[0] + s->pos[1] + s->pos[2] == sum) c->order[n++] = i;
            }
    return 1;
}

Context *mapper_open(const Problem *p) {
    Context *c = calloc(1, sizeof(Context));
    if (!c) return 0;
    c->p = *p;
    for (int r = 0; r < p->ranks; r++)
        for (int t = 0; t < 2; t++) {
            c->in_rank[p->rank_dim[r][t]] = 1 + 2 * r + t;
            c->window[c->windows++] = p->rank_dim[r][t];
        }
    c->memo_size = 1 << 14;
    c->memo = calloc(c->memo_size, sizeof(Memo));
    if (!c->memo || !find_stages(c)) {
        free(c->memo);
        free(c);
        return 0;
    }
    return c;
}

void mapper_close(Context *c) {
    for (int r = 0; r < CROSSINGS; r++) free(c->cost[r]);
    free(c->memo), free(c->coord), free(c->bound), free(c->node), free(c->heap), free(c->hash), free(c);
}

/* ---- the lattice of one unrolling --------------------------------------------------------------------------------- */

static int set_row(Context *c, const int32_t *spatial, const int32_t *spacing) {
    const Problem *p = &c->p;
    for (int e = 0; e < p->dims; e++) {
        c->inside[0][e] = 1;
        for (int j = 0; j < p->arrays; j++) {
            c->spatial[j][e] = spatial[j * p->dims + e];
            c->spacing[j][e] = spacing[j * p->dims + e];
            c->inside[j + 1][e] = c->inside[j][e] * c->spatial[j][e];
        }
        c->temporal[e] = p->extent[e] / c->inside[p->arrays][e];
    }
    c->axes = 0;
    int64_t points = 1;
    for (int e = p->dims - 1; e >= 0; e--) {
        int rest = c->temporal[e], length = 1;
        c->size[e][0] = 1;
        c->stride[e] = (int32_t)points;
        for (int prime = 2; rest > 1; prime++) {
            if (prime * prime > rest) prime = rest;
            int exponent = 0;
            for (; rest % prime == 0; rest /= prime) exponent++;
            if (!exponent) continue;
            if (c->axes == AXES || length * (exponent + 1) > MAX_LENGTH) return 0;
            c->axis[c->axes++] = (Axis){e, prime, (int32_t)points * length, exponent + 1, length};
            for (int i = length; i < length * (exponent + 1); i++) c->size[e][i] = c->size[e][i - length] * prime;
            length *= exponent + 1;
        }
        c->length[e] = length;
        points *= length;
        if (points > 4000000) return 0;
    }
    c->points = (int32_t)points;
    if (c->points > c->point_room) {
        c->point_room = c->points;
        c->coord = room(c->coord, (size_t)c->points * DIMS);
        for (int r = 0; r < p->crossings; r++) c->cost[r] = room(c->cost[r], (size_t)c->points * sizeof(double));
    }
    uint8_t now[DIMS] = {0};
    for (int v = 0; v < c->points; v++) {
        memcpy(c->coord + (size_t)v * DIMS, now, DIMS);
        for (int e = p->dims - 1; e >= 0; e--) {
            if (++now[e] < c->length[e]) break;
            now[e] = 0;
        }
    }
    return 1;
}

static inline int extent_at(const Context *c, int point, int e) { return c->size[e][c->coord[(size_t)point * DIMS + e]]; }

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* Elements of the tile of a crossing's child at a point. */
static double elements_at(const Context *c, const Crossing *q, int point) {
    const Problem *p = &c->p;
    double found = 1;
    for (int e = 0; e < p->dims; e++)
        if (p->relevant[q->operand] >> e & 1 && !(q->operand == INPUT && c->in_rank[e]))
            found *= (double)extent_at(c, point, e) * c->inside[q->inner][e];
    if (q->operand == INPUT)
        for (int r = 0; r < p->ranks; r++) {
            const int x = p->rank_dim[r][0], y = p->rank_dim[r][1];
            const int64_t m = (int64_t)extent_at(c, point, x) * c->inside[q->inner][x];
            const int64_t n = (int64_t)extent_at(c, point, y) * c->inside[q->inner][y];
            const int64_t a = p->coefficient[r][0], b = p->coefficient[r][1], g = gcd(a, b);
            const int64_t over = m > b / g ? m - b / g : 0, other = n > a / g ? n - a / g : 0;
            found *= (double)(m * n - over * other);
        }
    return found;
}

/* Bits of that tile in whole words. */
static double bits_at(const Context *c, const Crossing *q, int point) {
    return ceil(elements_at(c, q, point) * q->bits / q->word - 1e-9) * q->word;
}

/* ---- windows: points of a rank's tile that are new when it moves, united over array elements ----------------------- */

typedef struct {
    int count, distance;
} Copies;

static int spread(uint64_t *set, int bits, Copies many) {
    uint64_t base[WORDS];
    const int total = bits + (many.count - 1) * many.distance;
    if (total > WORDS * 64) return -1;
    memcpy(base, set, sizeof base);
    for (int i = 1; i < many.count; i++) {
        const int by = i * many.distance, words = by / 64, rest = by % 64;
        for (int w = WORDS - 1; w >= words; w--) {
            uint64_t part = base[w - words] << rest;
            if (rest && w > words) part |= base[w - words - 1] >> (64 - rest);
            set[w] |= part;
        }
    }
    return total;
}

/* |(A without A - shift) + S|, or |A + S| with `all`; A = {a*i + b*j : i < x, j < y}, S the sums of `copies`. */
static int rank_points(Context *c, int a, int x, int b, int y, const Copies *copies, int many, int shift, int all) {
    Hash h = {0x51ull, 0x77ull};
    feed(&h, a), feed(&h, x), feed(&h, b), feed(&h, y), feed(&h, all ? 1 << 30 : shift);
    for (int i = 0; i < many; i++)
        if (copies[i].count > 1) feed(&h, copies[i].count), feed(&h, copies[i].distance);
    const double *known = memo_get(c, &h);
    if (known) return (int)*known;
    uint64_t tile[WORDS] = {1}, moved[WORDS];
    int bits = spread(tile, 1, (Copies){x, a});
    bits = spread(tile, bits, (Copies){y, b});
    if (!all) {
        const int by = abs(shift), words = by / 64, rest = by % 64;
        memset(moved, 0, sizeof moved);
        for (int w = 0; w < WORDS; w++) {
            if (shift >= 0) { /* tile >> shift */
                if (w + words < WORDS) moved[w] = tile[w + words] >> rest;
                if (rest && w + words + 1 < WORDS) moved[w] |= tile[w + words + 1] << (64 - rest);
            } else {
                if (w >= words) moved[w] = tile[w - words] << rest;
                if (rest && w > words) moved[w] |= tile[w - words - 1] >> (64 - rest);
            }
        }
        for (int w = 0; w < WORDS; w++) tile[w] &= ~moved[w];
    }
    for (int i = 0; i < many; i++)
        if (copies[i].count > 1) bits = spread(tile, bits, copies[i]);
    int found = 0;
    for (int w = 0; w < WORDS; w++) found += __builtin_popcountll(tile[w]);
    memo_put(c, h, found);
    return found;
}

/* How the loops outside a cut tile move it. All extents are in units of the child (times what is inside it), so that
 * equal geometries are met again under other unrollings. */
typedef struct {
    int first, arrays, level; /* arrays inside the child; all arrays; the level counted */
    int step[WINDOWS], between[LEVELS][WINDOWS], count[ARRAYS][WINDOWS], apart[ARRAYS][WINDOWS], whole[WINDOWS];
    /* between[k]: product of the arrays first..k-1; count and apart of array j; whole: all temporal iterations */
    int pinned[ARRAYS][WINDOWS];
    uint64_t a, b; /* hash of all this */
} Geometry;

static int wrap_of(const Geometry *g, int i, int k, int tile, int now) {
    int at = tile, total = 0;
    for (int j = g->first; j < k; j++)
        if (g->pinned[j][i]) {
            total += (g->apart[j][i] - at) * g->between[j][i];
            at = g->apart[j][i];
        }
    return total + (now - at) * g->between[k][i];
}

/* Points kept at the geometry's level when window dim `runner` advances in segment k (-1: none of them does). */
static double kept_points(Context *c, const Geometry *g, int k, const int *tile, const int *now, int runner) {
    const Problem *p = &c->p;
    double kept = 1;
    for (int r = 0; r < p->ranks; r++) {
        int shift = 0;
        Copies copies[2 * ARRAYS];
        int many = 0;
        for (int t = 0; t < 2; t++) {
            const int i = 2 * r + t, a = p->coefficient[r][t], wrap = wrap_of(g, i, k, tile[i], now[i]);
            shift += a * (i == runner ? now[i] * g->between[k][i] - wrap : -wrap);
            for (int j = g->first; j < g->level; j++)
                copies[many++] = (Copies){g->count[j][i], a * (g->pinned[j][i] ? g->apart[j][i] : tile[i]) * g->between[j][i]};
        }
        const int a = p->coefficient[r][0], b = p->coefficient[r][1], x = tile[2 * r], y = tile[2 * r + 1];
        const int reach = a * (x - 1) + b * (y - 1);
        if (shift > reach || -shift > reach) return 0;
        const int all = rank_points(c, a, x, b, y, copies, many, 0, 1);
        const int fresh = rank_points(c, a, x, b, y, copies, many, shift, 0);
        if (all <= fresh) return 0;
        kept *= all - fresh;
    }
    return kept;
}

static double whole_points(Context *c, const Geometry *g, const int *tile) {
    const Problem *p = &c->p;
    double found = 1;
    for (int r = 0; r < p->ranks; r++) {
        Copies copies[2 * ARRAYS];
        int many = 0;
        for (int t = 0; t < 2; t++)
            for (int j = g->first; j < g->level; j++) {
                const int i = 2 * r + t, apart = g->pinned[j][i] ? g->apart[j][i] : tile[i];
                copies[many++] = (Copies){g->count[j][i], p->coefficient[r][t] * apart * g->between[j][i]};
            }
        found *= rank_points(c, p->coefficient[r][0], tile[2 * r], p->coefficient[r][1], tile[2 * r + 1], copies, many, 0, 1);
    }
    return found;
}

/* Whether any step from here on may find something of the tile: wraps only grow. */
static int may_save(const Context *c, const Geometry *g, int k, const int *tile, const int *now) {
    const Problem *p = &c->p;
    int wraps[2] = {1, 1}, steps[2] = {0, 0};
    for (int r = 0; r < p->ranks; r++) {
        int back[2], ahead[2], reach = 0;
        for (int t = 0; t < 2; t++) {
            const int i = 2 * r + t, a = p->coefficient[r][t];
            back[t] = a * wrap_of(g, i, k, tile[i], now[i]);
            const int last = g->whole[i];
            ahead[t] = last > now[i] ? a * (last * g->between[g->arrays][i] - wrap_of(g, i, g->arrays, tile[i], last)) : -1;
            reach += a * (tile[i] - 1);
        }
        wraps[r] = back[0] + back[1] <= reach;
        steps[r] = (ahead[0] >= 0 && back[1] <= reach + ahead[0]) || (ahead[1] >= 0 && back[0] <= reach + ahead[1]);
    }
    if (p->ranks == 1) return wraps[0] || steps[0];
    return (wraps[0] && (wraps[1] || steps[1])) || (wraps[1] && steps[0]);
}

/* The most points that steps from here on can save, per block of all other dims, `reuse` iterations of loops that do not
 * see the input being left. Loops that reuse it run all at once or not at all: savings are linear in where they part. */
static double most_saved(Context *c, const Geometry *g, int k, const int *tile, const int *now, int reuse) {
    if (!may_save(c, g, k, tile, now)) return 0;
    Hash h = {g->a, g->b};
    feed(&h, k), feed(&h, reuse);
    for (int i = 0; i < c->windows; i++) feed(&h, tile[i]), feed(&h, now[i]);
    const double *known = memo_get(c, &h);
    if (known) return *known;
    double best = 0, blocks = 1;
    int fresh = 1, may_pass = k < g->arrays;
    for (int i = 0; i < c->windows; i++) {
        blocks *= (double)g->whole[i] / now[i];
        fresh &= now[i] == tile[i];
        if (k < g->arrays && g->pinned[k][i] && g->apart[k][i] != now[i]) may_pass = 0;
    }
    if (may_pass) best = most_saved(c, g, k + 1, tile, now, reuse);
    if (reuse > 1 && !fresh) {
        const double saved = (reuse - 1) * blocks * kept_points(c, g, k, tile, now, -1);
        if (saved > 0) {
            const double total = saved + most_saved(c, g, k, tile, now, 1);
            if (total > best) best = total;
        }
    }
    for (int i = 0; i < c->windows; i++) {
        int limit = g->whole[i];
        for (int j = k; j < g->arrays; j++)
            if (g->pinned[j][i]) {
                limit = g->apart[j][i];
                break;
            }
        int rest = limit / now[i];
        if (limit % now[i]) continue;
        const double kept = rest > 1 ? kept_points(c, g, k, tile, now, i) : 0;
        for (int prime = 2; rest > 1; prime++) {
            if (prime * prime > rest) prime = rest;
            if (rest % prime) continue;
            for (; rest % prime == 0; rest /= prime) {
            }
            int next[WINDOWS];
            memcpy(next, now, sizeof next);
            next[i] *= prime;
            const double total =
                (prime - 1) * (blocks / prime) * reuse * kept + most_saved(c, g, k, tile, next, reuse);
            if (total > best) best = total;
        }
    }
    memo_put(c, h, best);
    return best;
}

/* The geometry of a crossing at a level; pins where the row fixes them. */
static void set_geometry(const Context *c, const Crossing *q, int level, Geometry *g) {
    memset(g, 0, sizeof *g);
    g->first = q->inner, g->arrays = c->p.arrays, g->level = level;
    for (int i = 0; i < c->windows; i++) {
        const int e = c->window[i], own = c->inside[q->inner][e];
        g->whole[i] = c->temporal[e] * own;
        for (int k = q->inner; k <= c->p.arrays; k++) g->between[k][i] = c->inside[k][e] / own;
        for (int j = q->inner; j < c->p.arrays; j++) {
            g->count[j][i] = c->spatial[j][e];
            g->apart[j][i] = c->spacing[j][e] * own;
            g->pinned[j][i] = c->spacing[j][e] > 0 && c->spatial[j][e] > 1;
        }
    }
}

static void seal(const Context *c, Geometry *g) {
    Hash h = {0x1234ull, 0x98765ull};
    feed(&h, g->arrays - g->first), feed(&h, g->level - g->first);
    for (int i = 0; i < c->windows; i++) {
        feed(&h, g->whole[i]);
        for (int j = g->first; j < g->arrays; j++)
            feed(&h, g->count[j][i]), feed(&h, g->pinned[j][i] ? g->apart[j][i] : 0);
    }
    feed(&h, g->first);
    g->a = h.a, g->b = h.b;
}

/* Fewest points over all orders outside, the input being alone; least over the distances that the row leaves open. */
static double fewest(Context *c, const Crossing *q, Geometry *g, const int *tile, int reuse, int from) {
    for (int at = from; at < c->p.arrays * c->windows; at++) {
        const int j = at / c->windows, i = at % c->windows;
        if (j < q->inner || g->pinned[j][i] || g->count[j][i] <= 1 || g->whole[i] == tile[i]) continue;
        int low = tile[i];
        for (int b = q->inner; b < j; b++)
            if (g->pinned[b][i]) low = g->apart[b][i];
        double best = INFINITY;
        for (int f = 1; f <= g->whole[i] / low; f++)
            if ((g->whole[i] / low) % f == 0) {
                Geometry fixed = *g;
                fixed.pinned[j][i] = 1, fixed.apart[j][i] = low * f;
                const double found = fewest(c, q, &fixed, tile, reuse, at + 1);
                if (found < best) best = found;
            }
        return best;
    }
    for (int i = 0; i < c->windows; i++) { /* a tile that no pinned distance can have */
        for (int j = q->inner; j < c->p.arrays; j++)
            if (g->pinned[j][i] && g->apart[j][i] % tile[i]) return INFINITY;
    }
    seal(c, g);
    double blocks = reuse;
    for (int i = 0; i < c->windows; i++) blocks *= (double)g->whole[i] / tile[i];
    const double all = blocks * whole_points(c, g, tile);
    return q->forgets ? all : all - most_saved(c, g, q->inner, tile, tile, reuse);
}

/* ---- prices of settling at every point ------------------------------------------------------------------------------ */

static int is_window(const Context *c, const Crossing *q) { return q->operand == INPUT && c->windows > 0; }

static void set_weights(Context *c) {
    const Problem *p = &c->p;
    for (int r = 0; r < p->crossings; r++) {
        const Crossing *q = &p->crossing[r];
        double plain = 1, outside = 1;
        for (int e = 0; e < p->dims; e++)
            if (p->relevant[q->operand] >> e & 1 && !(q->operand == INPUT && c->in_rank[e])) plain *= p->extent[e];
        for (int l = p->arrays; l >= q->inner; l--) {
            if (l < p->arrays)
                for (int e = 0; e < p->dims; e++)
                    if (!(p->relevant[q->operand] >> e & 1) || (q->operand == INPUT && c->in_rank[e]))
                        outside *= c->spatial[l][e];
            c->weight[r][l] = l <= q->outer ? q->price[l - q->inner] * plain * outside : 0;
        }
    }
}

static double reuse_at(const Context *c, int x, int point) {
    double found = 1;
    for (int e = 0; e < c->p.dims; e++)
        if (!(c->p.relevant[x] >> e & 1)) found *= (double)(c->temporal[e] / extent_at(c, point, e));
    return found;
}

static void tile_of(const Context *c, const Crossing *q, int point, int *tile) {
    for (int i = 0; i < c->windows; i++) {
        const int e = c->window[i];
        tile[i] = extent_at(c, point, e) * c->inside[q->inner][e];
    }
}

static double window_cost(Context *c, int r, int point) {
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0};
    tile_of(c, q, point, tile);
    const int reuse = (int)reuse_at(c, INPUT, point);
    double total = 0;
    for (int l = q->inner; l <= q->outer; l++)
        if (c->weight[r][l] > 0) {
            Geometry g;
            set_geometry(c, q, l, &g);
            seal(c, &g);
            Hash h = {g.a ^ 0xF111ull, g.b + q->forgets};
            for (int i = 0; i < c->windows; i++) feed(&h, tile[i]);
            feed(&h, reuse);
            const double *known = memo_get(c, &h);
            double value = known ? *known : 0;
            if (!known) {
                value = fewest(c, q, &g, tile, reuse, 0);
                memo_put(c, h, value);
            }
            total += c->weight[r][l] * value;
        }
    return total;
}

static void set_costs(Context *c, const double *limit) {
    const Problem *p = &c->p;
    set_weights(c);
    for (int r = 0; r < p->crossings; r++) {
        const Crossing *q = &p->crossing[r];
        double *cost = c->cost[r];
        const double capacity = limit && limit[r] < q->capacity ? limit[r] : q->capacity;
        double sum = 0;
        for (int l = q->inner; l <= q->outer; l++) sum += c->weight[r][l];
        int32_t others = 0; /* dims that decide the price of a window: all others may repeat it */
        for (int e = 0; e < p->dims; e++)
            if (p->relevant[INPUT] >> e & 1 && !c->in_rank[e]) others |= 1 << e;
        for (int v = 0; v < c->points; v++) {
            cost[v] = INFINITY;
            if (q->forgets && v) continue;
            if (q->latch && elements_at(c, q, v) > 1) continue;
            if (capacity < INFINITY && bits_at(c, q, v) > capacity) continue;
            if (is_window(c, q)) {
                int same = v; /* the same point with plain dims at one */
                for (int e = 0; e < p->dims; e++)
                    if (others >> e & 1) same -= c->coord[(size_t)v * DIMS + e] * c->stride[e];
                cost[v] = same != v && cost[same] < INFINITY ? cost[same] : window_cost(c, r, v);
            } else {
                cost[v] = sum * reuse_at(c, q->operand, v) + q->constant;
            }
        }
    }
}

/* ---- the bound: cheapest path when every input is alone with its windows -------------------------------------------- */

static int may_pass(const Context *c, int k, int point) {
    for (int e = 0; e < c->p.dims; e++)
        if (c->spacing[k][e] && c->spatial[k][e] > 1 && extent_at(c, point, e) != c->spacing[k][e]) return 0;
    return 1;
}

static int pins(const Context *c, int k) {
    for (int e = 0; e < c->p.dims; e++)
        if (c->spacing[k][e] && c->spatial[k][e] > 1) return 1;
    return 0;
}

static void least_above(const Context *c, double *values, int moves) {
    for (int i = 0; i < c->axes; i++) {
        const Axis *a = &c->axis[i];
        if (!(moves >> a->dim & 1)) continue;
        const int block = a->stride * a->length;
        for (int start = 0; start < c->points; start += block)
            for (int step = a->length - 2; step >= 0; step--) {
                double *restrict low = values + start + step * a->stride;
                const double *restrict high = low + a->stride;
                for (int j = 0; j < a->stride; j++) low[j] = high[j] < low[j] ? high[j] : low[j];
            }
    }
}

static double bound_row(Context *c) {
    const int64_t n = c->points, need = n * c->stages;
    if (need > c->bound_room) {
        c->bound_room = need;
        c->bound = room(c->bound, (size_t)need * sizeof(double));
    }
    for (int i = 0; i < c->stages; i++) {
        const int s = c->order[i];
        const Stage *stage = &c->stage[s];
        double *values = c->bound + s * n;
        for (int64_t v = 0; v < n; v++) values[v] = stage->final ? 0 : INFINITY;
        if (stage->final) continue;
        for (int j = stage->first; j < stage->first + stage->edges; j++) {
            const double *from = c->bound + c->edge[j].target * n;
            const int r = c->edge[j].crossing;
            if (r >= 0) {
                const double *cost = c->cost[r];
                for (int64_t v = 0; v < n; v++) {
                    const double total = cost[v] + from[v];
                    values[v] = total < values[v] ? total : values[v];
                }
            } else {
                const int pinned = pins(c, stage->k);
                for (int64_t v = 0; v < n; v++)
                    if (from[v] < values[v] && (!pinned || may_pass(c, stage->k, (int)v))) values[v] = from[v];
            }
        }
        if (stage->moves) least_above(c, values, stage->moves);
    }
    return c->bound[0]; /* stage 0 at point 0 */
}

/* Least energies of many unrollings (infinite where nothing fits, -1 where a lattice is too large); points covered. */
int64_t mapper_bounds(Context *c, int64_t rows, const int32_t *spatial, const int32_t *spacing, double *found) {
    int64_t covered = 0;
    const int each = c->p.arrays * c->p.dims;
    for (int64_t i = 0; i < rows; i++) {
        found[i] = -1;
        if (!set_row(c, spatial + i * each, spacing + i * each) || (int64_t)c->points * c->stages > 60000000) continue;
        set_costs(c, 0);
        found[i] = bound_row(c);
        covered += c->points;
    }
    return covered;
}

/* ---- the exact path -------------------------------------------------------------------------------------------------- */

static void heap_push(Context *c, Entry e) {
    if (c->heaped == c->heap_room) {
        c->heap_room = c->heap_room ? 2 * c->heap_room : 4096;
        c->heap = room(c->heap, (size_t)c->heap_room * sizeof(Entry));
    }
    int64_t i = c->heaped++;
    while (i) {
        const int64_t up = (i - 1) / 2;
        const Entry *o = &c->heap[up];
        if (o->rank < e.rank || (o->rank == e.rank && o->depth >= e.depth)) break;
        c->heap[i] = *o;
        i = up;
    }
    c->heap[i] = e;
}

static Entry heap_pop(Context *c) {
    const Entry top = c->heap[0], e = c->heap[--c->heaped];
    int64_t i = 0;
    for (;;) {
        int64_t down = 2 * i + 1;
        if (down >= c->heaped) break;
        if (down + 1 < c->heaped) {
            const Entry *a = &c->heap[down], *b = &c->heap[down + 1];
            if (b->rank < a->rank || (b->rank == a->rank && b->depth > a->depth)) down++;
        }
        const Entry *o = &c->heap[down];
        if (e.rank < o->rank || (e.rank == o->rank && e.depth >= o->depth)) break;
        c->heap[i] = *o;
        i = down;
    }
    c->heap[i] = e;
    return top;
}

static uint64_t node_hash(const Node *n) {
    Hash h = {0x1ull, 0x2ull};
    feed(&h, n->stage), feed(&h, n->point);
    for (int i = 0; i < SLOTS; i++) feed(&h, n->slot[i]);
    for (int i = 0; i < POOLS; i++) feed(&h, (int64_t)n->used[i]);
    return h.a ^ (h.b << 1);
}

static int same_place(const Node *a, const Node *b) {
    return a->stage == b->stage && a->point == b->point && !memcmp(a->slot, b->slot, sizeof a->slot) &&
           !memcmp(a->used, b->used, sizeof a->used);
}

/* Cut tiles of the input that may still save something: slot = (crossing + 1) * 2^24 + point of the cut. */
static double savings_left(Context *c, int32_t slot, int stage, int point) {
    const int r = (slot >> 24) - 1, cut = slot & 0xFFFFFF;
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0}, now[WINDOWS] = {0};
    tile_of(c, q, cut, tile), tile_of(c, q, point, now);
    const int reuse = (int)reuse_at(c, INPUT, point);
    double total = 0;
    for (int l = q->inner; l <= q->outer; l++)
        if (c->weight[r][l] > 0) {
            Geometry g;
            set_geometry(c, q, l, &g);
            seal(c, &g);
            total += c->weight[r][l] * most_saved(c, &g, c->stage[stage].k, tile, now, reuse);
        }
    return total;
}

/* pJ that a cut tile saves when dim e advances `prime` times, coming from `point`. */
static double step_saving(Context *c, int32_t slot, int k, int point, int e, int prime) {
    const int r = (slot >> 24) - 1, cut = slot & 0xFFFFFF;
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0}, now[WINDOWS] = {0}, runner = -1, fresh = 1;
    tile_of(c, q, cut, tile), tile_of(c, q, point, now);
    double blocks = reuse_at(c, INPUT, point), total = 0;
    for (int i = 0; i < c->windows; i++) {
        if (c->window[i] == e) runner = i;
        fresh &= tile[i] == now[i];
        blocks *= (double)(c->temporal[c->window[i]] / extent_at(c, point, c->window[i]));
    }
    if (runner < 0 && fresh) return 0; /* an input that its loops reuse settles after them */
    for (int l = q->inner; l <= q->outer; l++)
        if (c->weight[r][l] > 0) {
            Geometry g;
            set_geometry(c, q, l, &g);
            total += c->weight[r][l] * kept_points(c, &g, k, tile, now, runner);
        }
    return total * (prime - 1) * blocks / prime;
}

static int window_point(const Context *c, int point) {
    int found = 0;
    for (int i = 0; i < c->windows; i++) {
        const int e = c->window[i];
        found += c->coord[(size_t)point * DIMS + e] * c->stride[e];
    }
    return found;
}

/* The whole tile at every step. */
static double full_cost(Context *c, int r, int point) {
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0};
    tile_of(c, q, point, tile);
    double blocks = reuse_at(c, INPUT, point), total = 0;
    for (int i = 0; i < c->windows; i++) blocks *= (double)(c->temporal[c->window[i]] / extent_at(c, point, c->window[i]));
    for (int l = q->inner; l <= q->outer; l++)
        if (c->weight[r][l] > 0) {
            Geometry g;
            set_geometry(c, q, l, &g);
            total += c->weight[r][l] * blocks * whole_points(c, &g, tile);
        }
    return total;
}

typedef struct {
    double cutoff, scale;
    int64_t most;
} Hunt;

static void visit(Context *c, Node n, const Hunt *h, int depth) {
    double bound = n.energy + c->bound[(int64_t)n.stage * c->points + n.point];
    if (!(bound < INFINITY)) return;
    for (int i = 0; i < SLOTS; i++)
        if (n.slot[i]) {
            const double left = savings_left(c, n.slot[i], n.stage, n.point);
            if (left <= 0) n.slot[i] = 0;
            bound -= left;
        }
    if (bound >= h->cutoff) return;
    if (2 * (c->nodes + 1) > c->hash_size) {
        c->hash_size = c->hash_size ? 4 * c->hash_size : 1 << 14;
        c->hash = room(c->hash, (size_t)c->hash_size * sizeof(int32_t));
        memset(c->hash, -1, (size_t)c->hash_size * sizeof(int32_t));
        for (int64_t i = 0; i < c->nodes; i++) {
            uint64_t at = node_hash(&c->node[i]) & (uint64_t)(c->hash_size - 1);
            while (c->hash[at] >= 0) at = (at + 1) & (uint64_t)(c->hash_size - 1);
            c->hash[at] = (int32_t)i;
        }
    }
    uint64_t at = node_hash(&n) & (uint64_t)(c->hash_size - 1);
    while (c->hash[at] >= 0 && !same_place(&c->node[c->hash[at]], &n)) at = (at + 1) & (uint64_t)(c->hash_size - 1);
    int64_t index = c->hash[at];
    if (index >= 0) {
        if (c->node[index].energy <= n.energy) return;
    } else {
        if (c->nodes == c->node_room) {
            c->node_room = c->node_room ? 2 * c->node_room : 4096;
            c->node = room(c->node, (size_t)c->node_room * sizeof(Node));
        }
        index = c->nodes++;
        c->hash[at] = (int32_t)index;
    }
    c->node[index] = n;
    heap_push(c, (Entry){(int64_t)(bound * h->scale), depth, (int32_t)index});
}

static int depth_of(const Context *c, const Node *n) {
    const Stage *s = &c->stage[n->stage];
    int depth = 64 * (s->k + s->pos[0] + s->pos[1] + s->pos[2]);
    for (int i = 0; i < c->axes; i++) {
        const Axis *a = &c->axis[i];
        depth += n->point / a->stride % a->length;
    }
    return depth;
}

/* Room in a shared memory: bits taken so far while some of its operands are still to come. 0 where it overflows. */
static int take_room(const Context *c, Node *n, const Crossing *q, int point) {
    const Problem *p = &c->p;
    if (q->pool >= 0) {
        n->used[q->pool] += bits_at(c, q, point);
        if (n->used[q->pool] > p->pool_bits[q->pool]) return 0;
    }
    for (int pool = 0; pool < p->pools; pool++) {
        int waiting = 0;
        for (int r = 0; r < p->crossings; r++) {
            const Crossing *o = &p->crossing[r];
            if (o->pool == pool && c->stage[n->stage].pos[o->operand] <= o->child) waiting = 1;
        }
        if (!waiting) n->used[pool] = 0;
    }
    return 1;
}

/* The cheapest path of one unrolling. Returns 0: found; 1: none below the cutoff; 2: too many nodes, *energy is a bound;
 * 3: the lattice is too large. `path`, innermost first: axis of a step (its dim and prime in `steps`), 1000 + crossing
 * that settles, 2000 + array passed; `length` entries at most, then how many there are. */
int mapper_path(Context *c, const int32_t *spatial, const int32_t *spacing, const double *limit, double cutoff, int64_t most,
                double *energy, int32_t *path, int32_t *length, int32_t *steps, int64_t *visited) {
    const Problem *p = &c->p;
    *visited = 0;
    if (!set_row(c, spatial, spacing) || c->points >= 1 << 24 || (int64_t)c->points * c->stages > 60000000) return 3;
    set_costs(c, limit);
    const double root = bound_row(c);
    *energy = root;
    if (!(root < cutoff)) return 1;
    c->nodes = c->heaped = 0;
    if (c->hash_size) memset(c->hash, -1, (size_t)c->hash_size * sizeof(int32_t));
    const Hunt h = {cutoff, 1e11 / (root > 1 ? root : 1), most};
    Node start = {0};
    start.parent = -1;
    visit(c, start, &h, 0);
    while (c->heaped) {
        const Entry e = heap_pop(c);
        const Node n = c->node[e.node];
        if (n.action & 1 << 30) continue; /* expanded at this energy already */
        const Stage *s = &c->stage[n.stage];
        if (s->final) {
            *energy = n.energy;
            int many = 0;
            for (int i = e.node; c->node[i].parent >= 0; i = c->node[i].parent) many++;
            if (many > *length) return 3;
            *length = many;
            for (int i = e.node; c->node[i].parent >= 0; i = c->node[i].parent)
                path[--many] = c->node[i].action & ~(1 << 30);
            for (int i = 0; i < c->axes; i++) steps[2 * i] = c->axis[i].dim, steps[2 * i + 1] = c->axis[i].prime;
            *visited = c->nodes;
            return 0;
        }
        if (c->nodes > most) {
            *energy = (double)e.rank / h.scale;
            *visited = c->nodes;
            return 2;
        }
        c->node[e.node].action |= 1 << 30;
        for (int j = s->first; j < s->first + s->edges; j++) {
            const int r = c->edge[j].crossing;
            Node next = n;
            next.stage = c->edge[j].target;
            next.parent = e.node;
            if (r < 0) {
                if (!may_pass(c, s->k, n.point)) continue;
                next.action = 2000 + s->k;
            } else {
                const Crossing *q = &p->crossing[r];
                if (!(c->cost[r][n.point] < INFINITY)) continue;
                next.action = 1000 + r;
                if (is_window(c, q) && !q->forgets) {
                    next.energy += full_cost(c, r, n.point);
                    if (q->child < SLOTS) next.slot[q->child] = (r + 1) << 24 | window_point(c, n.point);
                } else {
                    next.energy += c->cost[r][n.point];
                }
                if (!take_room(c, &next, q, n.point)) continue;
            }
            visit(c, next, &h, depth_of(c, &next));
        }
        for (int i = 0; i < c->axes; i++) {
            const Axis *a = &c->axis[i];
            if (!(s->moves >> a->dim & 1) || n.point / a->stride % a->length == a->length - 1) continue;
            Node next = n;
            next.point += a->stride;
            next.parent = e.node;
            next.action = i;
            for (int slot = 0; slot < SLOTS; slot++)
                if (next.slot[slot]) {
                    if (p->relevant[INPUT] >> a->dim & 1 && !c->in_rank[a->dim])
                        next.slot[slot] = 0;
                    else
                        next.energy -= step_saving(c, n.slot[slot], s->k, n.point, a->dim, a->prime);
                }
            visit(c, next, &h, depth_of(c, &next));
        }
    }
    *energy = cutoff;
    *visited = c->nodes;
    return 1;
}

int64_t mapper_sizes(int which) { return which == 0 ? (int64_t)sizeof(Problem) : (int64_t)sizeof(Crossing); }
