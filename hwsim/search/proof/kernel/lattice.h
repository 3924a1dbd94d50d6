/* Stages of a path, and the lattice of tile sizes of one unrolling. */
#pragma once
#include "state.h"

/* ---- stages ------------------------------------------------------------------------------------------------------- */

static int segment_of(const Problem *p, int x, int pos) { return pos ? p->segment[x][pos] : 0; }

static int stage_index(Context *c, Stage s) {
    for (int i = 0; i < c->stages; i++) {
        const Stage *o = &c->stage[i];
        if (o->k == s.k && o->carried == s.carried && !memcmp(o->pos, s.pos, sizeof s.pos) && o->turn == s.turn &&
            !memcmp(o->entry, s.entry, sizeof s.entry))
            return i;
    }
    if (c->stages == STAGES) return -1;
    c->stage[c->stages] = s;
    return c->stages++;
}

static int add_edge(Context *c, int from, int crossing, Stage target, int guard) {
    const int to = stage_index(c, target);
    if (to < 0 || c->edges == EDGES || guard < -1) return 0;
    c->edge[c->edges++] = (Edge){crossing, to, guard};
    c->stage[from].edges++;
    return 1;
}

/* The memory around the loops of a stage (memories inside it), and the rule that they are under. */
static void set_region(const Context *c, Stage *s) {
    const Problem *p = &c->p;
    s->level = MEMORIES;
    for (int x = 0; x < 3; x++) {
        int holder = s->pos[x] ? s->pos[x] : 1;
        while (holder < p->holders[x] && p->segment[x][holder] < s->k) holder++;
        if (p->depth[x][holder] < s->level) s->level = p->depth[x][holder];
    }
    s->region = -1;
    for (int i = 0; i < p->regions; i++)
        if (p->region[i].k == s->k && (p->region[i].memory < 0 || p->region[i].memory == s->level)) s->region = i;
}

static int guard_index(Context *c, Guard g) {
    for (int i = 0; i < c->guards; i++)
        if (!memcmp(&c->guard[i], &g, sizeof g)) return i;
    if (c->guards == GUARDS) return -2;
    c->guard[c->guards] = g;
    return c->guards++;
}

/* What an edge has to ask of a point: -1 nothing, -2 no room. */
static int guard_of(Context *c, const Stage *s, const Stage *t) {
    const Problem *p = &c->p;
    Guard g = {.leaves = -1, .enters = -1};
    if (s->region != t->region) {
        if (s->region >= 0) g.leaves = s->region, memcpy(g.left, s->entry, sizeof g.left);
        if (t->region >= 0 && p->region[t->region].kept[0] >= 0)
            g.enters = t->region, memcpy(g.entered, t->entry, sizeof g.entered);
    }
    for (int i = 0; i < p->regions; i++) {
        const Region *r = &p->region[i];
        const int before = s->k < r->k || (s->k == r->k && s->level < r->memory);
        const int behind = t->k > r->k || (t->k == r->k && t->level > r->memory);
        if (r->memory >= 0 && before && behind) g.skips |= 1 << i;
    }
    return g.leaves < 0 && g.enters < 0 && !g.skips ? -1 : guard_index(c, g);
}

/* Edges to a stage: where its loops are under another rule, to every extent with which they may begin. */
static int add_edges(Context *c, int from, int crossing, Stage target) {
    const Stage source = c->stage[from];
    set_region(c, &target);
    if (target.region == source.region) return add_edge(c, from, crossing, target, guard_of(c, &source, &target));
    const Region *r = target.region >= 0 ? &c->p.region[target.region] : 0;
    target.turn = 0;
    memset(target.entry, 0, sizeof target.entry);
    for (int i = 0; i < KEPT;) {
        if (!add_edge(c, from, crossing, target, guard_of(c, &source, &target))) return 0;
        for (i = 0; i < KEPT; i++) { /* the next choice of extents */
            if (++target.entry[i] < (r && r->kept[i] >= 0 ? r->sizes[i] : 1)) break;
            target.entry[i] = 0;
        }
    }
    return 1;
}

static int find_stages(Context *c) {
    const Problem *p = &c->p;
    Stage start = {.k = 0, .carried = -1};
    set_region(c, &start);
    stage_index(c, start);
    for (int i = 0; i < c->stages; i++) {
        Stage s = c->stage[i];
        int waiting = -1;
        for (int x = 2; x >= 0; x--)
            if (s.pos[x] == 0 && !p->latched[x]) waiting = x;
        int moves = waiting >= 0 ? 0 : (1 << p->dims) - 1;
        if (s.carried >= 0) moves &= ~p->relevant[s.carried % GROWN];
        if (s.region >= 0) moves &= p->region[s.region].turn[s.turn];
        c->stage[i].moves = moves;
        c->stage[i].waits = waiting >= 0;
        c->stage[i].first = c->edges;
        c->stage[i].final = s.k == p->arrays && s.carried < 0;
        for (int x = 0; x < 3; x++)
            if (s.pos[x] != p->holders[x]) c->stage[i].final = 0;
        c->stage[i].end = -1;
        if (c->stage[i].final && s.region >= 0) {
            Guard g = {.leaves = s.region, .enters = -1};
            memcpy(g.left, s.entry, sizeof g.left);
            c->stage[i].end = guard_index(c, g);
            if (c->stage[i].end < 0) return 0;
        }
        if (s.region >= 0 && s.turn + 1 < p->region[s.region].turns) {
            Stage t = s;
            t.turn++;
            if (!add_edge(c, i, TURNS, t, -1)) return 0;
        }
        for (int r = 0; r < p->crossings; r++) {
            const Crossing *q = &p->crossing[r];
            const int x = q->operand;
            if ((waiting >= 0 && x != waiting) || q->child != s.pos[x] || q->inner > s.k) continue;
            Stage t = s;
            t.pos[x] = q->parent;
            if (s.carried >= 0 && s.carried % GROWN == x && q->outer >= s.k) t.carried = -1;
            if (!add_edges(c, i, r, t)) return 0;
        }
        if (p->remainders && s.carried >= 0 && s.carried < GROWN) {
            Stage t = s;
            t.carried += GROWN;
            if (!add_edges(c, i, GROWS, t)) return 0;
        }
        if (s.k < p->arrays) {
            int lacking = -1, many = 0;
            for (int x = 0; x < 3; x++)
                if (segment_of(p, x, s.pos[x]) <= s.k) lacking = x, many++;
            if (many > 1 || (many && s.carried >= 0 && s.carried % GROWN != lacking)) continue;
            Stage t = s;
            t.k++;
            if (lacking < 0 || s.carried < 0) t.carried = lacking;
            if (!add_edges(c, i, PASSED, t)) return 0;
        }
    }
    int n = 0;
    for (int k = p->arrays; k >= 0; k--)
        for (int sum = 3 * HOLDERS; sum >= 0; sum--)
            for (int grown = 1; grown >= 0; grown--)
                for (int turn = p->regions ? DIMS : 0; turn >= 0; turn--)
                    for (int i = 0; i < c->stages; i++) {
                        const Stage *s = &c->stage[i];
                        if (s->k == k && s->pos[0] + s->pos[1] + s->pos[2] == sum && (s->carried >= GROWN) == grown &&
                            s->turn == turn)
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
    free(c->bound), free(c->gate), free(c->line), free(c->memo), free(c->coord), free(c->reduced), free(c->fills), free(c->elements), free(c->reused), free(c->priced), free(c->node), free(c->heap), free(c->hash), free(c);
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

/* Which children of output crossings may receive nothing but finished outputs: those that no array outside adds up into,
 * as an instance there has only its share (`receives_finals` of hwsim/nest/legal.py). */
static void set_finishes(Context *c) {
    const Problem *p = &c->p;
    c->tracks = 0;
    for (int r = 0; r < p->crossings; r++) {
        const Crossing *q = &p->crossing[r];
        c->finishes[r] = q->operand == OUTPUT && q->child && q->finished != q->bits;
        for (int j = q->inner; j < p->arrays; j++)
            for (int e = 0; e < p->dims; e++)
                if (!(p->relevant[OUTPUT] >> e & 1) && c->spatial[j][e] > 1) c->finishes[r] = 0;
        c->tracks |= c->finishes[r];
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
    set_finishes(c);
    c->points = (int32_t)points;
    if (c->points > c->point_room) {
        c->point_room = c->points;
        c->coord = room(c->coord, (size_t)c->points * DIMS);
        c->reduced = room(c->reduced, (size_t)c->points);
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
        c->reduced[v] = 1;
        for (int e = 0; e < p->dims; e++)
            if (!(p->relevant[OUTPUT] >> e & 1) && now[e] < c->length[e] - 1) c->reduced[v] = 0;
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
static inline double in_words(const Crossing *q, double elements, double bits) {
    return ceil(elements * bits / q->word - 1e-9) * q->word;
}

/* Elements of a tile that fit, in whole words: the tile may have a fraction of a word less. */
static double most_elements(const Crossing *q, double bits) {
    if (q->latch) return 1;
    return q->capacity == INFINITY ? INFINITY : (floor(q->capacity / q->word + 1e-9) + 1e-9) * q->word / bits;
}
