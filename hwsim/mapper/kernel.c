/* The inner loops of the certified search for one spatial unrolling: a lower bound on the energy of every path through
 * the lattice of tile sizes, and the cheapest path itself. Equations: docs/search.md; the Python side is native.py.
 *
 * A point is a vector of temporal extents. A stage says in which segment between two arrays the path is (k), which
 * holder of every operand settles next (pos, 0 is the MAC) and which operand is stationary above an array it was to settle
 * below (carried). Edges of a stage: a crossing settles, or the array of the segment is passed. An unrolling that does not
 * divide a dim leaves array elements idle. An operand reused along it and carried over that array meets every element once
 * the dim has gone on outside the array, else only those with work: from then on the stage says so (carried + GROWN).
 *
 * Inputs whose windows overlap settle with the price of loading their whole tile at every step; what a step outside keeps
 * of the tile is a saving. The most that a path may save, the input being alone, makes the bound ("fills"); the exact
 * path carries the tiles that may still save something. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DIMS = 8, ARRAYS = 6, LEVELS = ARRAYS + 1, CROSSINGS = 64, HOLDERS = 8, POOLS = 6, SLOTS = 4, AXES = 40 };
enum { WORDS = 32, INPUT = 1, MAX_LENGTH = 128, STAGES = 4096, EDGES = 16384, WINDOWS = 4, TABLES = 6, LANES = 8, LINES = 24 };
enum { GROWN = 3, PASSED = -1, GROWS = -2 }; /* PASSED, GROWS: edges that settle nothing */
enum { COST, ENERGY, TIME, MIXED }; /* what a table of prices adds up to */

typedef struct {
    int32_t operand, child, parent, inner, outer; /* holders counted from 1, the MAC is 0; arrays inside both */
    int32_t forgets, latch, pool;                 /* a MAC without a latch; one with; shared memory or -1 */
    double capacity, bits, word;
} Crossing;

/* Linear prices of crossings: per element at a level, part of it divided by the instances inside which a memory works
 * (`shared[g]`: g arrays are inside them; LEVELS: not divided). */
typedef struct {
    int32_t kind, unused;
    double energy, time; /* MIXED: weights with which energy and time are added up */
    double price[CROSSINGS][LEVELS + 1][LEVELS], constant[CROSSINGS][LEVELS + 1];
} Table;

typedef struct {
    int32_t dims, arrays, crossings, pools, ranks, remainders;
    int32_t extent[DIMS], relevant[3], latched[3], holders[3];
    int32_t segment[3][HOLDERS];
    int32_t rank_dim[2][2], coefficient[2][2];
    double pool_bits[POOLS];
    Crossing crossing[CROSSINGS];
} Problem;

typedef struct {
    int32_t k, pos[3], carried, moves, first, edges, final, waits; /* waits: for a MAC that keeps nothing */
} Stage;

typedef struct {
    int32_t crossing, target; /* crossing, PASSED or GROWS */
} Edge;

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
    int32_t stage, point, parent, action, next, done, slot[SLOTS];
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
} Context;

static void *room(void *old, size_t bytes) {
    void *found = realloc(old, bytes);
    if (!found) abort();
    return found;
}

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
        if (s.carried >= 0) moves &= ~p->relevant[s.carried % GROWN];
        c->stage[i].moves = moves;
        c->stage[i].waits = waiting >= 0;
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
            if (s.carried >= 0 && s.carried % GROWN == x && q->outer >= s.k) t.carried = -1;
            if (!add_edge(c, i, r, t)) return 0;
        }
        if (p->remainders && s.carried >= 0 && s.carried < GROWN) {
            Stage t = s;
            t.carried += GROWN;
            if (!add_edge(c, i, GROWS, t)) return 0;
        }
        if (s.k < p->arrays) {
            int lacking = -1, many = 0;
            for (int x = 0; x < 3; x++)
                if (segment_of(p, x, s.pos[x]) <= s.k) lacking = x, many++;
            if (many > 1 || (many && s.carried >= 0 && s.carried % GROWN != lacking)) continue;
            Stage t = s;
            t.k++;
            if (lacking < 0 || s.carried < 0) t.carried = lacking;
            if (!add_edge(c, i, PASSED, t)) return 0;
        }
    }
    int n = 0;
    for (int k = p->arrays; k >= 0; k--)
        for (int sum = 3 * HOLDERS; sum >= 0; sum--)
            for (int grown = 1; grown >= 0; grown--)
                for (int i = 0; i < c->stages; i++) {
                    const Stage *s = &c->stage[i];
                    if (s->k == k && s->pos[0] + s->pos[1] + s->pos[2] == sum && (s->carried >= GROWN) == grown)
                        c->order[n++] = i;
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
    c->last_reuse = 1;
    for (int e = 0; e < p->dims; e++)
        if (!(p->relevant[INPUT] >> e & 1)) c->last_reuse *= p->extent[e];
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
    for (int r = 0; r < CROSSINGS; r++) {
        free(c->cost[r]);
        for (int k = 0; k < LEVELS; k++) free(c->grown[r][k]);
    }
    for (int k = 0; k < ARRAYS; k++) free(c->blocked[k]);
    free(c->bound), free(c->line), free(c->memo), free(c->coord), free(c->fills), free(c->elements), free(c->reused), free(c->priced), free(c->node), free(c->heap), free(c->hash), free(c);
}

/* ---- the lattice of one unrolling --------------------------------------------------------------------------------- */

/* Blocks into which the sizes of a dim cut it. Array elements inside a level count once: they work side by side, and an
 * unrolling that does not divide leaves some of them idle, never a time step of all of them. */
static void set_blocks(Context *c) {
    const Problem *p = &c->p;
    memset(c->uneven, 0, sizeof c->uneven);
    for (int e = 0; e < p->dims; e++) {
        const int whole = c->inside[p->arrays][e];
        for (int k = 0; k <= p->arrays; k++)
            if (p->extent[e] % c->inside[k][e] && p->extent[e] % whole) c->uneven[k] |= 1 << e;
        for (int l = 0; l <= p->arrays; l++)
            for (int i = 0; i < c->length[e]; i++) {
                c->blocks[l][e][i] = (double)((p->extent[e] - 1) / ((int64_t)c->size[e][i] * c->inside[l][e]) + 1);
                const int64_t extent = (int64_t)c->size[e][i] * c->inside[l][e];
                c->held[l][e][i] = (double)(extent < p->extent[e] ? extent : p->extent[e]);
                c->full[l][e][i] = (double)(c->temporal[e] / c->size[e][i]) * (whole / c->inside[l][e]);
            }
    }
    for (int x = 0; x < 3; x++)
        for (int l = 0; l <= p->arrays; l++) {
            c->outside[x][l] = c->all[x][l] = 1;
            for (int e = 0; e < p->dims; e++)
                if (!(p->relevant[x] >> e & 1)) {
                    c->outside[x][l] *= c->blocks[l][e][c->length[e] - 1];
                    c->all[x][l] *= c->full[l][e][c->length[e] - 1];
                }
        }
}

/* `steps`: iterations of every dim, where more than it needs: its tiles are factors of them, the last ones cut short. */
static int set_row(Context *c, const int32_t *spatial, const int32_t *spacing, const int32_t *steps) {
    const Problem *p = &c->p;
    for (int e = 0; e < p->dims; e++) {
        c->inside[0][e] = 1;
        for (int j = 0; j < p->arrays; j++) {
            c->spatial[j][e] = spatial[j * p->dims + e];
            c->spacing[j][e] = spacing[j * p->dims + e];
            c->inside[j + 1][e] = c->inside[j][e] * c->spatial[j][e];
        }
        c->temporal[e] = (p->extent[e] - 1) / c->inside[p->arrays][e] + 1;
        if (steps[e] > c->temporal[e]) c->temporal[e] = steps[e];
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
    set_blocks(c);
    c->points = (int32_t)points;
    if (c->points > c->point_room) {
        c->point_room = c->points;
        c->coord = room(c->coord, (size_t)c->points * DIMS);
        const size_t bytes = (size_t)c->points * LANES * sizeof(double);
        for (int r = 0; r < p->crossings; r++) c->cost[r] = room(c->cost[r], bytes);
        for (int k = 0; k < p->arrays; k++) c->blocked[k] = room(c->blocked[k], bytes);
        c->fills = room(c->fills, (size_t)c->points * LEVELS * sizeof(double));
        c->elements = room(c->elements, (size_t)c->points * sizeof(double));
        c->reused = room(c->reused, (size_t)c->points * sizeof(double));
        c->priced = room(c->priced, (size_t)c->points * sizeof(double));
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

/* Blocks of the dims that do not see an operand, as a level counts them; those of `whole` dims with idle elements. */
static inline double reuse_at(const Context *c, int x, int level, int whole, int point) {
    const uint8_t *coord = c->coord + (size_t)point * DIMS;
    double found = 1;
    for (int e = 0; e < c->p.dims; e++)
        if (!(c->p.relevant[x] >> e & 1)) found *= (whole >> e & 1 ? c->full : c->blocks)[level][e][coord[e]];
    return found;
}

/* Products of one table per dim of a mask, at every point. */
static void multiply(const Context *c, double (*table)[MAX_LENGTH], double (*other)[MAX_LENGTH], int others, int mask,
                     double *found) {
    int64_t n = 1;
    found[0] = 1;
    for (int e = c->p.dims - 1; e >= 0; e--) {
        const double *factor = (others >> e & 1 ? other : table)[e];
        for (int i = c->length[e] - 1; i >= 0; i--) {
            const double f = mask >> e & 1 ? factor[i] : 1;
            for (int64_t v = 0; v < n; v++) found[i * n + v] = found[v] * f;
        }
        n *= c->length[e];
    }
}

/* `reuse_at` at every point. */
static void set_reuse(Context *c, int x, int level, int whole) {
    multiply(c, c->blocks[level], c->full[level], whole, ~c->p.relevant[x], c->reused);
}

/* The same for an operand carried to segment k along which an uneven dim has grown, whichever takes the fewest. */
static double reuse_grown(const Context *c, int x, int level, int k, int point) {
    double found = INFINITY;
    for (int e = 0; e < c->p.dims; e++)
        if (c->uneven[k] & ~c->p.relevant[x] & 1 << e) found = smaller(found, reuse_at(c, x, level, 1 << e, point));
    return found;
}

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* Points {a * i + b * j} of a window's tile of m times n. */
static double window_points(const Problem *p, int rank, int64_t m, int64_t n) {
    const int64_t a = p->coefficient[rank][0], b = p->coefficient[rank][1], g = gcd(a, b);
    const int64_t over = m > b / g ? m - b / g : 0, other = n > a / g ? n - a / g : 0;
    return (double)(m * n - over * other);
}

/* Dims of an operand that are in no window. */
static int plain_dims(const Context *c, int x) {
    int found = c->p.relevant[x];
    for (int i = 0; x == INPUT && i < c->windows; i++) found &= ~(1 << c->window[i]);
    return found;
}

/* Elements of the tile of a crossing's child at a point. */
static double elements_at(const Context *c, const Crossing *q, int point) {
    const Problem *p = &c->p;
    const uint8_t *coord = c->coord + (size_t)point * DIMS;
    const int plain = plain_dims(c, q->operand);
    double found = 1;
    for (int e = 0; e < p->dims; e++)
        if (plain >> e & 1) found *= c->held[q->inner][e][coord[e]];
    for (int r = 0; q->operand == INPUT && r < p->ranks; r++) {
        const int x = p->rank_dim[r][0], y = p->rank_dim[r][1];
        found *= window_points(p, r, (int64_t)c->held[q->inner][x][coord[x]], (int64_t)c->held[q->inner][y][coord[y]]);
    }
    return found;
}

/* `elements_at` at every point. */
static void set_elements(Context *c, const Crossing *q) {
    const Problem *p = &c->p;
    multiply(c, c->held[q->inner], c->held[q->inner], 0, plain_dims(c, q->operand), c->elements);
    for (int r = 0; q->operand == INPUT && r < p->ranks; r++) {
        const int x = p->rank_dim[r][0], y = p->rank_dim[r][1];
        double table[MAX_LENGTH * 4];
        const int wide = c->length[y], known = c->length[x] * wide <= MAX_LENGTH * 4;
        for (int i = 0; known && i < c->length[x]; i++)
            for (int j = 0; j < wide; j++)
                table[i * wide + j] = window_points(p, r, (int64_t)c->held[q->inner][x][i], (int64_t)c->held[q->inner][y][j]);
        for (int v = 0; v < c->points; v++) {
            const uint8_t *coord = c->coord + (size_t)v * DIMS;
            const int i = coord[x], j = coord[y];
            c->elements[v] *= known ? table[i * wide + j]
                                    : window_points(p, r, (int64_t)c->held[q->inner][x][i], (int64_t)c->held[q->inner][y][j]);
        }
    }
}

/* Bits of a tile in whole words. */
static inline double in_words(const Crossing *q, double elements) {
    return ceil(elements * q->bits / q->word - 1e-9) * q->word;
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

static int wrap_of(const Geometry *g, int i, int k, int tile, int now) {
    int at = tile, total = 0;
    for (int j = g->first; j < k; j++)
        if (g->pinned[j][i]) {
            total += (g->apart[j][i] - at) * g->between[j][i];
            at = g->apart[j][i];
        }
    return total + (now - at) * g->between[k][i];
}

/* ---- windows cut by an unrolling that does not divide: counted step by step where elements are idle ------------------ */

enum { ELEMENTS = 256, SIDES = 64 }; /* array elements of a dim, steps of it that differ */
enum { WHOLE, WRAPS, RUNS };         /* every tile; a block's last tile to its first; a block's last to the next one's first */

/* One dim of a rank at some steps: what array elements hold of it, and held before. */
typedef struct {
    double times;
    int elements, start[ELEMENTS], length[ELEMENTS], back[ELEMENTS], before[ELEMENTS];
} Side;

/* Where the first array element is after so many iterations (in units of the child). */
static int position(const Geometry *g, int i, int time) {
    int found = 0, low = 0;
    for (int j = g->first; j < g->arrays; j++)
        if (g->pinned[j][i]) {
            found += (time % g->apart[j][i] - low) * g->between[j][i];
            low = time % g->apart[j][i];
        }
    return found + (time - low) * g->between[g->arrays][i];
}

static int apart_of(const Geometry *g, int j, int i, int tile) {
    return (g->pinned[j][i] ? g->apart[j][i] : tile) * g->between[j][i];
}

/* The last tile of a block that an element at `offset` works on; -1: none. */
static int last_tile(const Geometry *g, int i, int block, int now, int tile, int offset) {
    for (int time = block * now + now - tile; time >= block * now; time -= tile)
        if (position(g, i, time) + offset < g->real[i]) return position(g, i, time) + offset;
    return -1;
}

static void set_side(const Geometry *g, int i, int tile, int now, int how, int block, const int *offset, int many, Side *s) {
    const int start = position(g, i, (how == RUNS ? block + 1 : block) * (how == WHOLE ? tile : now));
    s->elements = 0;
    s->times = 1;
    for (int e = 0; e < many; e++) {
        const int at = start + offset[e], n = s->elements, real = g->uneven >> i & 1 ? g->real[i] : at + tile;
        if (at >= real) continue;
        s->start[n] = at;
        s->length[n] = tile < real - at ? tile : real - at;
        s->back[n] = s->before[n] = 0;
        if (how != WHOLE) {
            const int back = g->uneven >> i & 1 ? last_tile(g, i, block, now, tile, offset[e])
                                                : position(g, i, block * now + now - tile) + offset[e];
            s->back[n] = back;
            s->before[n] = g->uneven >> i & 1 && g->real[i] - back < tile ? g->real[i] - back : tile;
        }
        s->elements++;
    }
}

static int same_side(const Side *a, const Side *b) {
    if (a->elements != b->elements) return 0;
    for (int e = 0; e < a->elements; e++)
        if (a->length[e] != b->length[e] || a->before[e] != b->before[e] ||
            a->start[e] - a->start[0] != b->start[e] - b->start[0] || a->start[e] - a->back[e] != b->start[e] - b->back[e])
            return 0;
    return 1;
}

/* Whether a step is like one before, which then counts for both. */
static int merged(Side *side, int many) {
    for (int s = 0; s < many; s++)
        if (same_side(&side[s], &side[many])) {
            side[s].times += side[many].times;
            return 1;
        }
    return 0;
}

/* All steps of a dim, equal ones once; -1 where there are too many. Elements of the array that does not divide the dim are
 * together where the level is outside of it, else each by itself; those of other arrays outside are alike. */
static int set_sides(const Geometry *g, int i, int tile, int now, int how, int prime, Side *side) {
    const int step = how == WHOLE ? tile : now, blocks = g->whole[i] / step, cut = g->uneven >> i & 1;
    const int alone = cut && g->spread[i] >= g->level && g->spread[i] >= g->first, groups = alone ? g->count[g->spread[i]][i] : 1;
    int many = 0;
    for (int group = 0; group < groups; group++) {
        int offset[ELEMENTS] = {alone ? group * apart_of(g, g->spread[i], i, tile) : 0}, elements = 1, most = 0;
        for (int j = g->first; j < g->level; j++) {
            if (elements * g->count[j][i] > ELEMENTS) return -1;
            for (int n = 1; n < g->count[j][i]; n++)
                for (int e = 0; e < elements; e++) offset[n * elements + e] = offset[e] + n * apart_of(g, j, i, tile);
            elements *= g->count[j][i];
        }
        for (int e = 0; e < elements; e++) most = offset[e] > most ? offset[e] : most;
        int last = how == RUNS ? blocks - 2 : blocks - 1;
        for (; cut && last >= 0; last--) { /* blocks where something is cut are the last ones */
            const int until = how == RUNS ? position(g, i, (last + 1) * now) : position(g, i, last * step + step - tile);
            if (until + most + tile <= g->real[i]) break;
            if (how == RUNS && (last + 1) % prime == 0) continue;
            if (many == SIDES) return -1;
            set_side(g, i, tile, now, how, last, offset, elements, &side[many]);
            if (side[many].elements) many += !merged(side, many);
        }
        const int whole = how == RUNS ? last + 1 - (last + 1) / prime : last + 1;
        if (whole > 0) {
            if (many == SIDES) return -1;
            set_side(g, i, tile, now, how, 0, offset, elements, &side[many]);
            side[many].times = whole;
            many += !merged(side, many);
        }
    }
    return many;
}

static void set_tile(uint64_t *set, int a, int x, int many, int b, int y, int more) {
    memset(set, 0, WORDS * sizeof *set);
    for (int i = 0; i < many; i++)
        for (int j = 0; j < more; j++) {
            const int at = a * (x + i) + b * (y + j);
            set[at / 64] |= 1ull << (at % 64);
        }
}

/* Points of a rank that elements hold, or of those the ones that nobody has to load again. */
static int side_points(int a, const Side *x, int b, const Side *y, int how) {
    uint64_t all[WORDS] = {0}, fresh[WORDS] = {0}, tile[WORDS], held[WORDS];
    for (int i = 0; i < x->elements; i++)
        for (int j = 0; j < y->elements; j++) {
            set_tile(tile, a, x->start[i], x->length[i], b, y->start[j], y->length[j]);
            if (how != WHOLE) set_tile(held, a, x->back[i], x->before[i], b, y->back[j], y->before[j]);
            for (int w = 0; w < WORDS; w++) {
                all[w] |= tile[w];
                if (how != WHOLE) fresh[w] |= tile[w] & ~held[w];
            }
        }
    int found = 0;
    for (int w = 0; w < WORDS; w++) found += __builtin_popcountll(all[w]) - __builtin_popcountll(fresh[w]);
    return found;
}

/* A rank's points over all its steps: every tile's (WHOLE), or what is kept when blocks wrap or `runner` advances. */
static double rank_total(Context *c, const Geometry *g, int r, int k, const int *tile, const int *now, int runner, int prime,
                         int how) {
    Hash h = {g->rank[r][0], g->rank[r][1]};
    feed(&h, how);
    for (int i = 2 * r; i < 2 * r + 2; i++)
        feed(&h, tile[i]), feed(&h, how == WHOLE ? 0 : now[i]), feed(&h, i == runner ? prime : 0);
    feed(&h, k - g->first);
    const double *known = memo_get(c, &h);
    if (known) return *known;
    static _Thread_local Side side[2][SIDES];
    int many[2];
    double total = 0;
    for (int t = 0; t < 2; t++) {
        const int i = 2 * r + t;
        many[t] = set_sides(g, i, tile[i], now[i], how == WHOLE ? WHOLE : i == runner ? RUNS : WRAPS, prime, side[t]);
        if (many[t] < 0) {
            c->lost = 1;
            return 0;
        }
    }
    for (int x = 0; x < many[0]; x++)
        for (int y = 0; y < many[1]; y++)
            total += side[0][x].times * side[1][y].times *
                     side_points(c->p.coefficient[r][0], &side[0][x], c->p.coefficient[r][1], &side[1][y], how);
    memo_put(c, h, total);
    return total;
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

/* The points of all tiles, every step. */
static double whole_total(Context *c, const Geometry *g, const int *tile) {
    double found = 1;
    if (!g->uneven) {
        for (int i = 0; i < c->windows; i++) found *= (double)g->whole[i] / tile[i];
        return found * whole_points(c, g, tile);
    }
    for (int r = 0; r < c->p.ranks; r++) found *= rank_total(c, g, r, g->first, tile, tile, -1, 1, WHOLE);
    return found;
}

/* The points kept over all steps at which `runner` advances to `prime` times as much, or (-1) blocks begin again. */
static double kept_total(Context *c, const Geometry *g, int k, const int *tile, const int *now, int runner, int prime) {
    double found = 1;
    if (!g->uneven) {
        for (int i = 0; i < c->windows; i++) found *= (double)g->whole[i] / now[i];
        return found * (runner < 0 ? 1 : (double)(prime - 1) / prime) * kept_points(c, g, k, tile, now, runner);
    }
    for (int r = 0; r < c->p.ranks && found > 0; r++) found *= rank_total(c, g, r, k, tile, now, runner, prime, WRAPS);
    return found;
}

/* How far a window dim goes back at least when a block of it begins again. */
static int least_wrap(const Geometry *g, int i, int k, int tile, int now) {
    if (!(g->uneven >> i & 1)) return wrap_of(g, i, k, tile, now);
    const int a = g->spread[i], many = a >= g->first ? g->count[a][i] : 1, each = many > 1 ? apart_of(g, a, i, tile) : 0;
    int least = position(g, i, now - tile);
    for (int block = g->whole[i] / now - 1; block >= 0; block--) {
        const int start = position(g, i, block * now);
        if (position(g, i, block * now + now - tile) + (many - 1) * each < g->real[i]) break;
        for (int e = 0; e < many && start + e * each < g->real[i]; e++) {
            const int wrap = last_tile(g, i, block, now, tile, e * each) - start - e * each;
            least = wrap < least ? wrap : least;
        }
    }
    return least;
}

/* Whether any step from here on may find something of the tile: wraps only grow. */
static int may_save(const Context *c, const Geometry *g, int k, const int *tile, const int *now) {
    const Problem *p = &c->p;
    int wraps[2] = {1, 1}, steps[2] = {0, 0};
    for (int r = 0; r < p->ranks; r++) {
        int back[2], ahead[2], reach = 0;
        for (int t = 0; t < 2; t++) {
            const int i = 2 * r + t, a = p->coefficient[r][t];
            back[t] = a * least_wrap(g, i, k, tile[i], now[i]);
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

/* ---- families of lines: the largest (savings) or the least (points loaded) at every x counts ------------------------ */

static double at(Line l, double x) { return l.slope * x + l.base; }

/* The most that is saved over n iterations. What does not grow with n happens in `few` to `many` array elements. */
static double largest(const Lines *f, double n, double few, double many) {
    double found = 0;
    for (int i = 0; i < f->count; i++)
        found = larger(found, f->line[i].slope * n + f->line[i].base * (f->line[i].base > 0 ? many : few));
    return found;
}

/* The least that is loaded. */
static double least(const Lines *f, double n, double few, double many) {
    double found = INFINITY;
    for (int i = 0; i < f->count; i++)
        found = smaller(found, f->line[i].slope * n + f->line[i].base * (f->line[i].base < 0 ? many : few));
    return found;
}

/* Add a line unless another one is as good from x = 1 to `last`; sign 1: larger is better, -1: smaller. A family that is
 * full becomes one line through its ends, on the safe side of all: the largest is convex, the least concave. */
static void add_line(Lines *f, Line new, double last, int sign) {
    int kept = 0;
    for (int i = 0; i < f->count; i++) {
        const double first = sign * (at(f->line[i], 1) - at(new, 1)), end = sign * (at(f->line[i], last) - at(new, last));
        if (first >= 0 && end >= 0) return;
        if (first > 0 || end > 0) f->line[kept++] = f->line[i];
    }
    f->count = kept;
    if (kept == LINES) {
        double low = at(new, 1), high = at(new, last);
        for (int i = 0; i < kept; i++) {
            low = sign * larger(sign * low, sign * at(f->line[i], 1));
            high = sign * larger(sign * high, sign * at(f->line[i], last));
        }
        const double slope = last > 1 ? (high - low) / (last - 1) : 0;
        f->line[0] = (Line){slope, low - slope};
        f->count = 1;
        return;
    }
    f->line[f->count++] = new;
}

/* The number under which a family is kept; -1 for an empty one. */
static int64_t keep_lines(Context *c, const Lines *f) {
    if (!f->count) return -1;
    if (c->lines + LINES + 1 > c->line_room) {
        c->line_room = c->line_room ? 2 * c->line_room : 4096;
        c->line = room(c->line, (size_t)c->line_room * sizeof(Line));
    }
    const int64_t number = c->lines;
    c->line[c->lines++].slope = f->count;
    for (int i = 0; i < f->count; i++) c->line[c->lines++] = f->line[i];
    return number;
}

static void kept_lines(const Context *c, int64_t number, Lines *f) {
    f->count = number < 0 ? 0 : (int)c->line[number].slope;
    for (int i = 0; i < f->count; i++) f->line[i] = c->line[number + 1 + i];
}

/* The most points that steps from here on can save, per block of all other dims, over the iterations left of loops that
 * do not see the input. Those run all at once or not at all: savings are linear in where they part. Returns the number
 * of a family of lines, -1: nothing. */
static int64_t most_saved(Context *c, const Geometry *g, int k, const int *tile, const int *now) {
    if (!may_save(c, g, k, tile, now)) return -1;
    Hash h = {g->a, g->b};
    feed(&h, k);
    for (int i = 0; i < c->windows; i++) feed(&h, tile[i]), feed(&h, now[i]);
    const double *known = memo_get(c, &h);
    if (known) return (int64_t)*known;
    Lines best = {0}, later;
    double blocks = 1, wraps[2] = {1, 1}; /* of ranks, where an array does not divide some window dim */
    int fresh = 1, passes = k < g->arrays;
    for (int r = 0; g->uneven && r < c->p.ranks; r++) wraps[r] = rank_total(c, g, r, k, tile, now, -1, 1, WRAPS);
    for (int i = 0; i < c->windows; i++) {
        blocks *= (double)g->whole[i] / now[i];
        fresh &= now[i] == tile[i];
        if (k < g->arrays && g->pinned[k][i] && g->apart[k][i] != now[i]) passes = 0;
    }
    if (passes) {
        kept_lines(c, most_saved(c, g, k + 1, tile, now), &best);
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
        const double kept = rest > 1 && !g->uneven ? kept_points(c, g, k, tile, now, i) : 0;
        for (int prime = 2; rest > 1; prime++) {
            if (prime * prime > rest) prime = rest;
            if (rest % prime) continue;
            for (; rest % prime == 0; rest /= prime) {
            }
            int next[WINDOWS];
            memcpy(next, now, sizeof next);
            next[i] *= prime;
            kept_lines(c, most_saved(c, g, k, tile, next), &later);
            double each = (prime - 1) * (blocks / prime) * kept;
            if (g->uneven) {
                each = wraps[1 - i / 2];
                if (each > 0) each *= rank_total(c, g, i / 2, k, tile, now, i, prime, WRAPS);
            }
            if (each > 0) add_line(&best, (Line){each, 0}, c->last_reuse, 1);
            for (int j = 0; j < later.count; j++)
                add_line(&best, (Line){later.line[j].slope + each, later.line[j].base}, c->last_reuse, 1);
        }
    }
    if (!fresh && c->last_reuse > 1) {
        const double each = g->uneven ? wraps[0] * wraps[1] : blocks * kept_points(c, g, k, tile, now, -1);
        if (each > 0) add_line(&best, (Line){each, largest(&best, 1, 1, 1) - each}, c->last_reuse, 1);
    }
    const int64_t number = keep_lines(c, &best);
    memo_put(c, h, (double)number);
    return number;
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
        if (c->p.extent[e] != c->inside[c->p.arrays][e] * c->temporal[e]) {
            g->spread[i] = -1;
            g->uneven |= 1 << i;
            g->real[i] = c->p.extent[e];
            for (int j = 0; j < c->p.arrays; j++)
                if (c->spatial[j][e] > 1) g->spread[i] = j;
        }
    }
}

static void seal(const Context *c, Geometry *g) {
    Hash h = {0x1234ull, 0x98765ull};
    feed(&h, g->arrays - g->first), feed(&h, g->level - g->first);
    for (int i = 0; i < c->windows; i++) {
        feed(&h, g->whole[i]);
        if (g->uneven >> i & 1) feed(&h, -1 - g->real[i]);
        for (int j = g->first; j < g->arrays; j++)
            feed(&h, g->count[j][i]), feed(&h, g->pinned[j][i] ? g->apart[j][i] : 0);
    }
    feed(&h, g->first);
    g->a = h.a, g->b = h.b;
    for (int r = 0; g->uneven && r < c->p.ranks; r++) {
        Hash own = {0x7A17ull, 0x3ull};
        feed(&own, r), feed(&own, g->level - g->first), feed(&own, g->arrays - g->first), feed(&own, g->uneven >> (2 * r) & 3);
        for (int i = 2 * r; i < 2 * r + 2; i++) {
            feed(&own, g->whole[i]);
            if (g->uneven >> i & 1) feed(&own, g->real[i]), feed(&own, g->spread[i] - g->first);
            for (int j = g->first; j < g->arrays; j++)
                feed(&own, g->count[j][i]), feed(&own, g->pinned[j][i] ? g->apart[j][i] : 0);
        }
        g->rank[r][0] = own.a, g->rank[r][1] = own.b;
    }
}

/* Fewest points over all orders outside, the input being alone, over the iterations of loops that do not see it; least
 * over the distances that the row leaves open. Lines are added to `found`. */
static void fewest(Context *c, const Crossing *q, Geometry *g, const int *tile, int from, Lines *found) {
    for (int place = from; place < c->p.arrays * c->windows; place++) {
        const int j = place / c->windows, i = place % c->windows;
        if (j < q->inner || g->pinned[j][i] || g->count[j][i] <= 1 || g->whole[i] == tile[i]) continue;
        int low = tile[i];
        for (int b = q->inner; b < j; b++)
            if (g->pinned[b][i]) low = g->apart[b][i];
        for (int f = 1; f <= g->whole[i] / low; f++)
            if ((g->whole[i] / low) % f == 0) {
                Geometry fixed = *g;
                fixed.pinned[j][i] = 1, fixed.apart[j][i] = low * f;
                fewest(c, q, &fixed, tile, place + 1, found);
            }
        return;
    }
    for (int i = 0; i < c->windows; i++) /* a tile that no pinned distance can have */
        for (int j = q->inner; j < c->p.arrays; j++)
            if (g->pinned[j][i] && g->apart[j][i] % tile[i]) return;
    seal(c, g);
    const double all = whole_total(c, g, tile);
    Lines saved;
    kept_lines(c, q->forgets ? -1 : most_saved(c, g, q->inner, tile, tile), &saved);
    add_line(found, (Line){all, 0}, c->last_reuse, -1);
    for (int i = 0; i < saved.count; i++)
        add_line(found, (Line){all - saved.line[i].slope, -saved.line[i].base}, c->last_reuse, -1);
}

/* ---- prices of settling at every point ------------------------------------------------------------------------------ */

static int is_window(const Context *c, const Crossing *q) { return q->operand == INPUT && c->windows > 0; }

static void set_weights(Context *c) {
    const Problem *p = &c->p;
    double instances[LEVELS + 1];
    instances[p->arrays] = instances[LEVELS] = 1;
    for (int g = p->arrays - 1; g >= 0; g--) {
        instances[g] = instances[g + 1];
        for (int e = 0; e < p->dims; e++) instances[g] *= c->spatial[g][e];
    }
    for (int r = 0; r < p->crossings; r++) {
        const Crossing *q = &p->crossing[r];
        double plain = 1, outside = 1; /* `outside`: elements among which windows are divided; others are in `blocks` */
        for (int e = 0; e < p->dims; e++)
            if (p->relevant[q->operand] >> e & 1 && !(q->operand == INPUT && c->in_rank[e])) plain *= p->extent[e];
        for (int l = p->arrays; l >= q->inner; l--) {
            if (l < p->arrays)
                for (int e = 0; e < p->dims; e++)
                    if (q->operand == INPUT && c->in_rank[e] && p->extent[e] == c->inside[p->arrays][e] * c->temporal[e])
                        outside *= c->spatial[l][e];
            for (int t = 0; t < c->tables; t++) {
                const Table *table = &c->table[t];
                double price = table->price[r][LEVELS][l];
                for (int g = 0; g <= p->arrays; g++) price += table->price[r][g][l] / instances[g];
                c->weight[t][r][l] = l <= q->outer ? price * plain * outside : 0;
            }
        }
        for (int t = 0; t < c->tables; t++) {
            c->constant[t][r] = c->table[t].constant[r][LEVELS];
            for (int g = 0; g <= p->arrays; g++) c->constant[t][r] += c->table[t].constant[r][g] / instances[g];
        }
    }
}

static int counted(const Context *c, int r, int level) {
    for (int t = 0; t < c->tables; t++)
        if (c->weight[t][r][level] != 0) return 1;
    return 0;
}

static void tile_of(const Context *c, const Crossing *q, int point, int *tile) {
    for (int i = 0; i < c->windows; i++) {
        const int e = c->window[i];
        tile[i] = extent_at(c, point, e) * c->inside[q->inner][e];
    }
}

/* Fewest points of a window crossing at every level, the input being alone; carried and grown to segment k (0: not). */
static void set_fills(Context *c, int r, int k, int point) {
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0};
    tile_of(c, q, point, tile);
    for (int l = q->inner; l <= q->outer; l++) {
        const double reuse = k ? reuse_grown(c, INPUT, l, k, point) : reuse_at(c, INPUT, l, 0, point);
        double value = 0;
        if (counted(c, r, l)) {
            Geometry *g = &c->geometry[r][l];
            Hash h = {g->a ^ 0xF111ull, g->b + q->forgets};
            for (int i = 0; i < c->windows; i++) feed(&h, tile[i]);
            const double *known = memo_get(c, &h);
            Lines found = {0};
            if (known) kept_lines(c, (int64_t)*known, &found);
            else {
                Geometry open = *g;
                fewest(c, q, &open, tile, 0, &found);
                memo_put(c, h, (double)keep_lines(c, &found));
            }
            value = least(&found, reuse, c->outside[INPUT][l], c->all[INPUT][l]);
        }
        c->fills[(size_t)point * LEVELS + l] = value;
    }
}

static int may_pass(const Context *c, int k, int point) {
    for (int e = 0; e < c->p.dims; e++)
        if (c->spacing[k][e] && c->spatial[k][e] > 1 && extent_at(c, point, e) != c->spacing[k][e]) return 0;
    return 1;
}

/* Whether it matters for an operand carried to segment k that a dim it does not see goes on outside its array. */
static int grows(const Context *c, int x, int k) { return (c->uneven[k] & ~c->p.relevant[x]) != 0; }

/* Prices of settling a crossing at every point; carried and grown to segment k (0: not). */
static void set_prices(Context *c, int r, int k, double *cost) {
    const Problem *p = &c->p;
    const Crossing *q = &p->crossing[r];
    const int apart = k || grows(c, q->operand, p->arrays); /* levels differ in reuse by more than a factor */
    int32_t others = 0; /* dims of the input in no window: they do not decide how its windows are filled */
    for (int e = 0; e < p->dims; e++)
        if (p->relevant[INPUT] >> e & 1 && !c->in_rank[e]) others |= 1 << e;
    double sum[TABLES];
    for (int t = 0; t < c->tables; t++) {
        sum[t] = 0;
        for (int l = q->inner; l <= q->outer; l++) sum[t] += c->weight[t][r][l] * c->outside[q->operand][l];
    }
    if (q->forgets) { /* settles before any loop: no other point is ever asked for */
        for (int t = 0; t < c->tables; t++) {
            cost[t] = c->constant[t][r];
            if (is_window(c, q)) {
                if (!t) set_fills(c, r, k, 0);
                for (int l = q->inner; l <= q->outer; l++) cost[t] += c->weight[t][r][l] * c->fills[l];
            } else {
                for (int l = q->inner; l <= q->outer; l++)
                    cost[t] += c->weight[t][r][l] * (k ? reuse_grown(c, q->operand, l, k, 0) : reuse_at(c, q->operand, l, 0, 0));
            }
        }
        return;
    }
    set_elements(c, q);
    /* in whole words: the tile may have a fraction of a word less */
    const double words = floor(q->capacity / q->word + 1e-9) + 1e-9;
    const double most = q->latch ? 1 : q->capacity == INFINITY ? INFINITY : words * q->word / q->bits;
    const double *restrict elements = c->elements;
    double *restrict priced = c->priced;
    if (is_window(c, q)) {
        for (int v = 0; v < c->points; v++, cost += c->lanes) {
            for (int t = 0; t < c->tables; t++) cost[t] = elements[v] <= most ? c->constant[t][r] : INFINITY;
            if (cost[0] == INFINITY) continue;
            int same = v; /* the same point with other dims at one: it fits too */
            for (int e = 0; e < p->dims; e++)
                if (others >> e & 1) same -= c->coord[(size_t)v * DIMS + e] * c->stride[e];
            if (same == v) set_fills(c, r, k, v);
            const double *fills = c->fills + (size_t)same * LEVELS;
            for (int t = 0; t < c->tables; t++)
                for (int l = q->inner; l <= q->outer; l++)
                    if (c->weight[t][r][l] != 0) cost[t] += c->weight[t][r][l] * fills[l];
        }
        return;
    }
    for (int t = 0; t < c->tables; t++) {
        for (int v = 0; v < c->points; v++) priced[v] = elements[v] <= most ? c->constant[t][r] : INFINITY;
        for (int l = apart ? q->inner : q->outer; l <= q->outer; l++) {
            const double each = apart ? c->weight[t][r][l] : sum[t];
            if (t == 0 || apart) {
                if (k)
                    for (int v = 0; v < c->points; v++) c->reused[v] = reuse_grown(c, q->operand, l, k, v);
                else set_reuse(c, q->operand, apart ? l : p->arrays, 0);
            }
            const double *restrict reused = c->reused;
            for (int v = 0; v < c->points; v++) priced[v] += each * reused[v];
        }
        for (int v = 0; v < c->points; v++) cost[(size_t)v * c->lanes + t] = priced[v];
    }
}

/* Prices of the row at hand, in lanes from `first` on. */
static void set_costs(Context *c, int first) {
    const Problem *p = &c->p;
    const int lanes = c->lanes;
    set_weights(c);
    for (int k = 0; k < p->arrays; k++) {
        for (int e = 0; e < p->dims; e++)
            if (c->spacing[k][e] && c->spatial[k][e] > 1) c->pinned[k] = 1;
        for (int v = 0; v < c->points; v++) {
            const double blocked = may_pass(c, k, v) ? 0 : INFINITY;
            for (int t = 0; t < c->tables; t++) c->blocked[k][(size_t)v * lanes + first + t] = blocked;
        }
    }
    for (int r = 0; r < p->crossings; r++) {
        const Crossing *q = &p->crossing[r];
        if (is_window(c, q))
            for (int l = q->inner; l <= q->outer; l++)
                set_geometry(c, q, l, &c->geometry[r][l]), seal(c, &c->geometry[r][l]);
        set_prices(c, r, 0, c->cost[r] + first);
        for (int k = q->inner + 1; k <= q->outer; k++)
            if (grows(c, q->operand, k)) {
                const int64_t need = (int64_t)c->points * lanes;
                if (need > c->grown_room[r][k]) {
                    c->grown_room[r][k] = need;
                    c->grown[r][k] = room(c->grown[r][k], (size_t)need * sizeof(double));
                }
                set_prices(c, r, k, c->grown[r][k] + first);
            }
    }
}

/* ---- the bound: cheapest path when every input is alone with its windows -------------------------------------------- */

#define INLINE static inline __attribute__((always_inline))

INLINE void least_above(const Context *c, double *values, int moves, const int lanes) {
    for (int i = 0; i < c->axes; i++) {
        const Axis *a = &c->axis[i];
        if (!(moves >> a->dim & 1)) continue;
        const int block = a->stride * a->length;
        for (int start = 0; start < c->points; start += block)
            for (int step = a->length - 2; step >= 0; step--) {
                double *restrict low = values + (int64_t)(start + step * a->stride) * lanes;
                const double *restrict high = low + a->stride * lanes;
                for (int j = 0; j < a->stride; j++)
                    for (int l = 0; l < lanes; l++) {
                        const double x = low[j * lanes + l], y = high[j * lanes + l];
                        low[j * lanes + l] = y < x ? y : x;
                    }
            }
    }
}

/* An unused lane. */
static void fill_lane(Context *c, int lane) {
    for (int v = 0; v < c->points; v++) {
        for (int r = 0; r < c->p.crossings; r++) {
            c->cost[r][(size_t)v * c->lanes + lane] = INFINITY;
            for (int k = 0; k <= c->p.arrays; k++)
                if (c->grown_room[r][k] >= (int64_t)c->points * c->lanes) c->grown[r][k][(size_t)v * c->lanes + lane] = INFINITY;
        }
        for (int k = 0; k < c->p.arrays; k++) c->blocked[k][(size_t)v * c->lanes + lane] = 0;
    }
}

/* Whether a stage differs from the one it grew from. */
static int stands(const Context *c, const Stage *s) {
    return s->carried < GROWN || grows(c, s->carried - GROWN, s->k);
}

/* Dims along which a stage goes on: an operand carried over an uneven dim's array has to have grown for that dim. */
static int moves_of(const Context *c, const Stage *s) {
    return s->carried >= 0 && s->carried < GROWN ? s->moves & ~c->uneven[s->k] : s->moves;
}

/* Prices of settling a crossing in a stage. */
static const double *cost_in(const Context *c, const Stage *s, int r) {
    const Crossing *q = &c->p.crossing[r];
    const int grown = s->carried >= GROWN && s->carried - GROWN == q->operand && q->inner < s->k && q->outer >= s->k;
    return grown && grows(c, q->operand, s->k) ? c->grown[r][s->k] : c->cost[r];
}

INLINE void bound_lanes(Context *c, const int lanes) {
    const int64_t n = (int64_t)c->points * lanes;
    for (int i = 0; i < c->stages; i++) {
        const int s = c->order[i];
        const Stage *stage = &c->stage[s];
        double *restrict values = c->bound + s * n;
        const int64_t many = stage->waits ? lanes : n; /* before the MAC is served no loop has begun */
        int first = 1;
        if (stage->final || !stands(c, stage)) {
            for (int64_t v = 0; v < many; v++) values[v] = stage->final ? 0 : INFINITY;
            continue;
        }
        for (int j = stage->first; j < stage->first + stage->edges; j++) {
            const double *restrict from = c->bound + c->edge[j].target * n;
            const int r = c->edge[j].crossing;
            const double *restrict cost = r >= 0                                   ? cost_in(c, stage, r)
                                          : r == PASSED && c->pinned[stage->k] ? c->blocked[stage->k]
                                                                               : 0;
            if (first && cost)
                for (int64_t v = 0; v < many; v++) values[v] = cost[v] + from[v];
            else if (first)
                for (int64_t v = 0; v < many; v++) values[v] = from[v];
            else if (cost)
                for (int64_t v = 0; v < many; v++) {
                    const double total = cost[v] + from[v];
                    values[v] = total < values[v] ? total : values[v];
                }
            else
                for (int64_t v = 0; v < many; v++) values[v] = from[v] < values[v] ? from[v] : values[v];
            first = 0;
        }
        if (first)
            for (int64_t v = 0; v < many; v++) values[v] = INFINITY;
        if (moves_of(c, stage)) least_above(c, values, moves_of(c, stage), lanes);
    }
}

/* Cheapest sums from every stage and point on, in all lanes; stage 0 at point 0 is the whole path's. */
static void set_bounds(Context *c) {
    const int64_t need = (int64_t)c->points * c->stages * c->lanes;
    if (need > c->bound_room) {
        c->bound_room = need;
        c->bound = room(c->bound, (size_t)need * sizeof(double));
    }
    if (c->lanes == 1) bound_lanes(c, 1);
    else if (c->lanes == 2) bound_lanes(c, 2);
    else if (c->lanes == 4) bound_lanes(c, 4);
    else bound_lanes(c, 8);
}

static int lanes_for(int many) { return many <= 1 ? 1 : many <= 2 ? 2 : many <= 4 ? 4 : 8; }

static int too_large(const Context *c) { return (int64_t)c->points * c->stages * LANES > 80000000; }

typedef struct {
    uint64_t shape;
    int64_t row;
} Shaped;

static int by_shape(const void *a, const void *b) {
    const Shaped *x = a, *y = b;
    if (x->shape != y->shape) return x->shape < y->shape ? -1 : 1;
    return x->row < y->row ? -1 : 1;
}

/* Least sums of many unrollings under the tables set (infinite where nothing fits, -infinity where a lattice is too
 * large or windows are lost): found[row * tables + table]. Unrollings of one lattice shape are solved side by side. Returns the points
 * covered. */
int64_t mapper_bounds(Context *c, int64_t rows, const int32_t *spatial, const int32_t *spacing, const int32_t *steps,
                      double *found) {
    int64_t covered = 0;
    const int each = c->p.arrays * c->p.dims, dims = c->p.dims, most = LANES / c->tables > 4 ? 4 : LANES / c->tables;
    Shaped *order = room(0, (size_t)(rows + 1) * sizeof(Shaped));
    for (int64_t i = 0; i < rows; i++) {
        Hash h = {1, 2};
        const int fits = set_row(c, spatial + i * each, spacing + i * each, steps + i * dims) && !too_large(c);
        for (int a = 0; a < c->axes; a++) feed(&h, c->axis[a].dim), feed(&h, c->axis[a].length);
        for (int k = 0; k <= c->p.arrays; k++) feed(&h, c->uneven[k]);
        order[i] = (Shaped){fits ? h.a | 1 : 0, i};
        for (int t = 0; t < c->tables; t++) found[i * c->tables + t] = -INFINITY;
    }
    qsort(order, (size_t)rows, sizeof(Shaped), by_shape);
    for (int64_t i = 0; i < rows;) {
        int64_t end = i + 1;
        while (end < rows && end < i + most && order[end].shape == order[i].shape) end++;
        if (order[i].shape) {
            c->lanes = lanes_for((int)(end - i) * c->tables);
            memset(c->pinned, 0, sizeof c->pinned);
            c->lost = 0;
            for (int64_t j = i; j < i + c->lanes / c->tables; j++) { /* lanes left over repeat the last row */
                const int64_t row = order[j < end ? j : end - 1].row;
                set_row(c, spatial + row * each, spacing + row * each, steps + row * dims);
                set_costs(c, (int)(j - i) * c->tables);
            }
            for (int l = c->lanes / c->tables * c->tables; l < c->lanes; l++) fill_lane(c, l);
            set_bounds(c);
            for (int64_t j = i; j < end; j++)
                for (int t = 0; t < c->tables; t++)
                    if (!c->lost) found[order[j].row * c->tables + t] = c->bound[(j - i) * c->tables + t];
            covered += c->points * (end - i);
        }
        i = end;
    }
    free(order);
    return covered;
}

/* The prices that bounds and paths add up from now on. */
void mapper_tables(Context *c, int32_t tables, const Table *table) {
    c->tables = tables;
    memcpy(c->table, table, (size_t)tables * sizeof(Table));
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
static double savings_left(Context *c, int32_t slot, int stage, int point, double *left) {
    const int r = (slot >> 24) - 1, cut = slot & 0xFFFFFF, passed = c->uneven[c->stage[stage].k];
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0}, now[WINDOWS] = {0};
    tile_of(c, q, cut, tile), tile_of(c, q, point, now);
    double any = 0;
    for (int l = q->inner; l <= q->outer; l++)
        if (counted(c, r, l)) {
            Lines saved;
            kept_lines(c, most_saved(c, &c->geometry[r][l], c->stage[stage].k, tile, now), &saved);
            const double reuse = reuse_at(c, INPUT, l, passed, point);
            const double most = largest(&saved, reuse, c->outside[INPUT][l], c->all[INPUT][l]);
            any += most;
            for (int t = 0; t < c->tables; t++) left[t] += c->weight[t][r][l] * most;
        }
    return any;
}

/* What a cut tile saves when dim e grows by `prime` from `point` to the node's: taken off what the node spent. */
static void take_saving(Context *c, Node *n, int32_t slot, int k, int point, int e, int prime) {
    const int r = (slot >> 24) - 1, cut = slot & 0xFFFFFF;
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0}, now[WINDOWS] = {0}, runner = -1, fresh = 1;
    tile_of(c, q, cut, tile), tile_of(c, q, point, now);
    for (int i = 0; i < c->windows; i++) {
        if (c->window[i] == e) runner = i;
        fresh &= tile[i] == now[i];
    }
    if (runner < 0 && fresh) return; /* an input that its loops reuse settles after them */
    for (int l = q->inner; l <= q->outer; l++)
        if (counted(c, r, l)) {
            const double reuse = reuse_at(c, INPUT, l, c->uneven[k], point);
            const double after = runner < 0 ? reuse_at(c, INPUT, l, c->uneven[k], n->point) : 0;
            const double saved = (reuse - after) * kept_total(c, &c->geometry[r][l], k, tile, now, runner, prime);
            for (int t = 0; t < c->tables; t++) n->spent[t] -= c->weight[t][r][l] * saved;
        }
}

static int window_point(const Context *c, int point) {
    int found = 0;
    for (int i = 0; i < c->windows; i++) {
        const int e = c->window[i];
        found += c->coord[(size_t)point * DIMS + e] * c->stride[e];
    }
    return found;
}

/* The whole tile at every step; `s`: the stage that settles. */
static void spend_full(Context *c, Node *n, const Stage *s, int r) {
    const Crossing *q = &c->p.crossing[r];
    int tile[WINDOWS] = {0};
    tile_of(c, q, n->point, tile);
    const int grown = cost_in(c, s, r) != c->cost[r];
    for (int t = 0; t < c->tables; t++) n->spent[t] += c->constant[t][r];
    for (int l = q->inner; l <= q->outer; l++)
        if (counted(c, r, l)) {
            const double reuse = grown ? reuse_grown(c, INPUT, l, s->k, n->point) : reuse_at(c, INPUT, l, 0, n->point);
            const double points = reuse * whole_total(c, &c->geometry[r][l], tile);
            for (int t = 0; t < c->tables; t++) n->spent[t] += c->weight[t][r][l] * points;
        }
}

typedef struct {
    double cutoff, scale, idle; /* idle: pJ per cycle, for products */
    const double *offset;       /* per table */
} Hunt;

/* The objective from bounds on the sums of all tables: the largest COST, or energy times time. MIXED tables bound a
 * weighted sum of energy and time: their product is least at one end of the line that this leaves. */
static double objective_of(const Context *c, const Hunt *h, const double *value) {
    double cost = -INFINITY, energy = 0, time = 0;
    int product = 0;
    for (int t = 0; t < c->tables; t++) {
        const double v = value[t] + h->offset[t];
        if (c->table[t].kind == COST && v > cost) cost = v;
        if (c->table[t].kind == ENERGY) energy = v, product = 1;
        if (c->table[t].kind == TIME && v > time) time = v;
    }
    if (!product) return cost;
    energy += h->idle * time;
    cost = energy * time;
    for (int t = 0; t < c->tables; t++)
        if (c->table[t].kind == MIXED) {
            const double a = c->table[t].energy, b = c->table[t].time, sum = value[t] + h->offset[t];
            if (sum > a * energy + b * time) {
                const double first = energy * (sum - a * energy) / b, second = time * (sum - b * time) / a;
                const double least = first < second ? first : second;
                if (least > cost) cost = least;
            }
        }
    return cost;
}

static int dominates(const Context *c, const Node *a, const Node *b) {
    for (int t = 0; t < c->tables; t++)
        if (c->table[t].kind != MIXED && a->spent[t] > b->spent[t] + 1e-12 * fabs(b->spent[t])) return 0;
    return 1;
}

static void visit(Context *c, Node n, const Hunt *h, int depth) {
    double value[TABLES];
    for (int t = 0; t < c->tables; t++) {
        value[t] = n.spent[t] + c->bound[((int64_t)n.stage * c->points + n.point) * c->lanes + t];
        if (!(value[t] < INFINITY)) return;
    }
    for (int i = 0; i < SLOTS; i++)
        if (n.slot[i]) {
            double left[TABLES] = {0};
            if (savings_left(c, n.slot[i], n.stage, n.point, left) <= 0) n.slot[i] = 0;
            for (int t = 0; t < c->tables; t++) value[t] -= left[t];
        }
    const double bound = objective_of(c, h, value);
    if (bound >= h->cutoff) return;
    if (2 * (c->nodes + 1) > c->hash_size) {
        c->hash_size = c->hash_size ? 4 * c->hash_size : 1 << 14;
        c->hash = room(c->hash, (size_t)c->hash_size * sizeof(int32_t));
        memset(c->hash, -1, (size_t)c->hash_size * sizeof(int32_t));
        for (int64_t i = 0; i < c->nodes; i++) {
            Node *o = &c->node[i];
            uint64_t at = node_hash(o) & (uint64_t)(c->hash_size - 1);
            while (c->hash[at] >= 0 && !same_place(&c->node[c->hash[at]], o)) at = (at + 1) & (uint64_t)(c->hash_size - 1);
            o->next = c->hash[at];
            c->hash[at] = (int32_t)i;
        }
    }
    uint64_t at = node_hash(&n) & (uint64_t)(c->hash_size - 1);
    while (c->hash[at] >= 0 && !same_place(&c->node[c->hash[at]], &n)) at = (at + 1) & (uint64_t)(c->hash_size - 1);
    for (int i = c->hash[at]; i >= 0; i = c->node[i].next) {
        Node *o = &c->node[i];
        if (dominates(c, o, &n)) return;
        if (dominates(c, &n, o)) o->done = 1;
    }
    if (c->nodes == c->node_room) {
        c->node_room = c->node_room ? 2 * c->node_room : 4096;
        c->node = room(c->node, (size_t)c->node_room * sizeof(Node));
    }
    n.next = c->hash[at];
    n.done = 0;
    c->hash[at] = (int32_t)c->nodes;
    c->node[c->nodes] = n;
    heap_push(c, (Entry){(int64_t)(bound * h->scale), depth, (int32_t)c->nodes++});
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
        n->used[q->pool] += in_words(q, elements_at(c, q, point));
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

/* The cheapest path of one unrolling under the tables set. `offset` per table is added to its sum; `idle`: pJ per cycle.
 * Returns 0: found; 1: none below the cutoff; 2: too many nodes, *found is a bound; 3: the lattice is too large. `path`,
 * innermost first: axis of a step (its dim and prime in `loops`), 1000 + crossing that settles, 2000 + array passed,
 * 3000 nothing;
 * `length` entries at most, then how many there are. */
int mapper_path(Context *c, const int32_t *spatial, const int32_t *spacing, const int32_t *steps, const double *offset,
                double idle, double cutoff, int64_t most, double *found, int32_t *path, int32_t *length, int32_t *loops,
                int64_t *visited) {
    const Problem *p = &c->p;
    *visited = 0;
    if (!set_row(c, spatial, spacing, steps) || c->points >= 1 << 24 || too_large(c)) return 3;
    c->lanes = lanes_for(c->tables);
    memset(c->pinned, 0, sizeof c->pinned);
    c->lost = 0;
    set_costs(c, 0);
    for (int l = c->tables; l < c->lanes; l++) fill_lane(c, l);
    set_bounds(c);
    if (c->lost) return 3;
    double roots[TABLES];
    for (int t = 0; t < c->tables; t++) {
        roots[t] = c->bound[t];
        if (!(roots[t] < INFINITY)) return 1;
    }
    Hunt h = {cutoff, 1, idle, offset};
    const double root = objective_of(c, &h, roots);
    *found = root;
    if (!(root < cutoff)) return 1;
    h.scale = 1e11 / (root > 1 ? root : 1);
    c->nodes = c->heaped = 0;
    if (c->hash_size) memset(c->hash, -1, (size_t)c->hash_size * sizeof(int32_t));
    Node start = {0};
    start.parent = -1;
    visit(c, start, &h, 0);
    while (c->heaped) {
        const Entry e = heap_pop(c);
        if (c->lost) return 3;
        if (c->node[e.node].done) continue; /* something at its place is nowhere worse */
        const Node n = c->node[e.node];
        const Stage *s = &c->stage[n.stage];
        int alive = 0;
        for (int i = 0; i < SLOTS; i++) alive |= n.slot[i];
        if (s->final && !alive) {
            *found = objective_of(c, &h, n.spent);
            int many = 0;
            for (int i = e.node; c->node[i].parent >= 0; i = c->node[i].parent) many++;
            if (many > *length) return 3;
            *length = many;
            for (int i = e.node; c->node[i].parent >= 0; i = c->node[i].parent) path[--many] = c->node[i].action;
            for (int i = 0; i < c->axes; i++) loops[2 * i] = c->axis[i].dim, loops[2 * i + 1] = c->axis[i].prime;
            *visited = c->nodes;
            return 0;
        }
        if (c->nodes > most) {
            *found = (double)e.rank / h.scale;
            *visited = c->nodes;
            return 2;
        }
        for (int j = s->first; j < s->first + s->edges; j++) {
            const int r = c->edge[j].crossing;
            Node next = n;
            next.stage = c->edge[j].target;
            next.parent = e.node;
            if (r == GROWS) {
                if (!stands(c, &c->stage[next.stage])) continue;
                next.action = 3000;
            } else if (r == PASSED) {
                if (!may_pass(c, s->k, n.point)) continue;
                next.action = 2000 + s->k;
            } else {
                const Crossing *q = &p->crossing[r];
                const double *cost = cost_in(c, s, r) + (size_t)n.point * c->lanes;
                if (!(cost[0] < INFINITY)) continue;
                next.action = 1000 + r;
                if (is_window(c, q) && !q->forgets) {
                    spend_full(c, &next, s, r);
                    next.slot[q->child] = (r + 1) << 24 | window_point(c, n.point);
                } else {
                    for (int t = 0; t < c->tables; t++) next.spent[t] += cost[t];
                }
                if (!take_room(c, &next, q, n.point)) continue;
            }
            visit(c, next, &h, depth_of(c, &next));
        }
        const int moves = moves_of(c, s);
        for (int i = 0; i < c->axes; i++) {
            const Axis *a = &c->axis[i];
            if (!(moves >> a->dim & 1) || n.point / a->stride % a->length == a->length - 1) continue;
            Node next = n;
            next.point += a->stride;
            next.parent = e.node;
            next.action = i;
            for (int slot = 0; slot < SLOTS; slot++)
                if (next.slot[slot]) {
                    if (p->relevant[INPUT] >> a->dim & 1 && !c->in_rank[a->dim])
                        next.slot[slot] = 0;
                    else
                        take_saving(c, &next, n.slot[slot], s->k, n.point, a->dim, a->prime);
                }
            visit(c, next, &h, depth_of(c, &next));
        }
    }
    *found = cutoff;
    *visited = c->nodes;
    return 1;
}

int64_t mapper_sizes(int which) {
    return which == 0 ? (int64_t)sizeof(Problem) : which == 1 ? (int64_t)sizeof(Crossing) : (int64_t)sizeof(Table);
}
