/* Inputs whose windows overlap: the points of their tiles, what steps outside keep of them, and the most that a path may
 * save. */
#pragma once
#include "lattice.h"

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
