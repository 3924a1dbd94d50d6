/* Prices of settling at every point, and the cheapest path through stages and points if every input were alone. */
#pragma once
#include "windows.h"

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

/* Whether a child's tile at a point has the extents that a rule asks for. */
static int tile_allowed(const Context *c, const Crossing *q, int point) {
    const uint8_t *coord = c->coord + (size_t)point * DIMS;
    for (int e = 0; e < c->p.dims; e++)
        if (q->most[e] && (c->held[q->inner][e][coord[e]] > q->most[e] || c->held[q->inner][e][coord[e]] < q->least[e])) return 0;
    return 1;
}

static void forbid_tiles(const Context *c, const Crossing *q, double *cost) {
    for (int v = 0; v < c->points; v++)
        if (!tile_allowed(c, q, v))
            for (int t = 0; t < c->tables; t++) cost[(size_t)v * c->lanes + t] = INFINITY;
}

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
    /* a tile settles finished only where no loop is left that adds to it; whether it does, the exact path knows */
    const double most = most_elements(q, q->bits);
    const double finished = c->finishes[r] ? larger(most, most_elements(q, q->finished)) : most;
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
        for (int v = 0; v < c->points; v++)
            priced[v] = elements[v] <= (c->reduced[v] ? finished : most) ? c->constant[t][r] : INFINITY;
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

/* ---- rules: how often loops run between two points ------------------------------------------------------------------ */

/* The extent of a dim with which the loops of a region began; 0 where this row has none like it. */
static int begun(const Context *c, const Region *r, const int32_t *entry, int e) {
    for (int i = 0; i < KEPT; i++)
        if (r->kept[i] == e) return entry[i] < c->length[e] ? c->size[e][entry[i]] : 0;
    int size = 1;
    for (int i = 0; i < r->fixes[e]; i++) {
        const int left = c->temporal[e] / size, factor = r->fixed[e][i];
        size *= factor && factor < left ? factor : left;
    }
    return size;
}

/* Whether the loops of a region that end at a point have run as often as they should, begun with these extents. */
static int meets(const Context *c, const Region *r, const int32_t *entry, int point) {
    for (int e = 0; e < c->p.dims; e++) {
        const int size = extent_at(c, point, e), most = r->most[e];
        if (r->kind[e] == FREE || (r->kind[e] == ALL_LEFT && size == c->temporal[e])) continue;
        const int begin = r->kind[e] == ALL_LEFT ? 0 : begun(c, r, entry, e);
        if (!begin || size % begin) return 0;
        const int factor = size / begin, left = c->temporal[e] / begin;
        if (r->kind[e] == AT_MOST ? factor > most : factor != (most < left ? most : left)) return 0;
    }
    return 1;
}

/* Whether a region may be left out here: none of its loops has to run. */
static int may_skip(const Context *c, const Region *r, int point) {
    for (int e = 0; e < c->p.dims; e++)
        if ((r->kind[e] == ALL_LEFT || r->kind[e] == EXACTLY) && extent_at(c, point, e) != c->temporal[e]) return 0;
    return 1;
}

static int opens(const Context *c, const Guard *g, int point) {
    if (g->leaves >= 0 && !meets(c, &c->p.region[g->leaves], g->left, point)) return 0;
    for (int i = 0; i < c->p.regions; i++)
        if (g->skips >> i & 1 && !may_skip(c, &c->p.region[i], point)) return 0;
    if (g->enters >= 0)
        for (int i = 0; i < KEPT; i++) {
            const int e = c->p.region[g->enters].kept[i];
            if (e >= 0 && c->coord[(size_t)point * DIMS + e] != g->entered[i]) return 0;
        }
    return 1;
}

/* Whether a path may end: under a rule with all loops written, else what is left may follow in any order. */
static int ends(const Context *c, const Stage *s, int point) {
    return s->final && (s->end < 0 || (point == c->points - 1 && opens(c, &c->guard[s->end], point)));
}

/* Which guards open for the row at hand, in lanes from `first` on. */
static void set_gates(Context *c, int first) {
    const int64_t need = (int64_t)c->guards * c->points * c->lanes;
    if (need > c->gate_room) {
        c->gate_room = need;
        c->gate = room(c->gate, (size_t)need);
        memset(c->gate, 0, (size_t)need);
    }
    for (int g = 0; g < c->guards; g++)
        for (int v = 0; v < c->points; v++)
            memset(c->gate + ((int64_t)g * c->points + v) * c->lanes + first, opens(c, &c->guard[g], v), (size_t)c->tables);
}

/* Prices of the row at hand, in lanes from `first` on. */
static void set_costs(Context *c, int first) {
    const Problem *p = &c->p;
    const int lanes = c->lanes;
    set_weights(c);
    if (c->guards) set_gates(c, first);
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
        if (q->tiled) forbid_tiles(c, q, c->cost[r] + first);
        for (int k = q->inner + 1; k <= q->outer; k++)
            if (grows(c, q->operand, k)) {
                const int64_t need = (int64_t)c->points * lanes;
                if (need > c->grown_room[r][k]) {
                    c->grown_room[r][k] = need;
                    c->grown[r][k] = room(c->grown[r][k], (size_t)need * sizeof(double));
                }
                set_prices(c, r, k, c->grown[r][k] + first);
                if (q->tiled) forbid_tiles(c, q, c->grown[r][k] + first);
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
        if ((stage->final && stage->region < 0) || !stands(c, stage)) {
            for (int64_t v = 0; v < many; v++) values[v] = stage->final ? 0 : INFINITY;
            continue;
        }
        if (stage->final) {
            for (int64_t v = 0; v < many; v++) values[v] = INFINITY;
            for (int64_t v = n - lanes; v < n; v++) values[v] = c->gate[stage->end * n + v] ? 0 : INFINITY;
            first = 0;
        }
        for (int j = stage->first; j < stage->first + stage->edges; j++) {
            const double *restrict from = c->bound + c->edge[j].target * n;
            const int r = c->edge[j].crossing;
            const double *restrict cost = r >= 0                                   ? cost_in(c, stage, r)
                                          : r == PASSED && c->pinned[stage->k] ? c->blocked[stage->k]
                                                                               : 0;
            if (c->edge[j].guard >= 0) {
                const uint8_t *restrict gate = c->gate + c->edge[j].guard * n;
                for (int64_t v = 0; v < many; v++) {
                    const double total = gate[v] ? (cost ? cost[v] : 0) + from[v] : INFINITY;
                    if (first || total < values[v]) values[v] = total;
                }
            } else if (first && cost)
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

static int too_large(const Context *c) { return (int64_t)c->points * (c->stages + c->guards / 8) * LANES > 80000000; }

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
