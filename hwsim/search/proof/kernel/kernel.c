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
#include "bounds.inc"

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
    assert(!c->heaped || c->heap[0].rank >= top.rank); /* least first */
    return top;
}

static uint64_t node_hash(const Node *n) {
    Hash h = {0x1ull, 0x2ull};
    feed(&h, n->stage), feed(&h, n->point), feed(&h, n->broken);
    for (int i = 0; i < SLOTS; i++) feed(&h, n->slot[i]);
    for (int i = 0; i < POOLS; i++) feed(&h, (int64_t)n->used[i]);
    return h.a ^ (h.b << 1);
}

static int same_place(const Node *a, const Node *b) {
    return a->stage == b->stage && a->point == b->point && a->broken == b->broken && !memcmp(a->slot, b->slot, sizeof a->slot) &&
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

/* Finished paths of a box of machines (`mapper_paths`): the sums of each under all tables, offsets included; those in
 * front were known before. Their steps one after another. */
typedef struct {
    double *value;
    int64_t count, room;
    int32_t *path, *length;
    int64_t first, steps, step_room; /* the first that is new; entries of `path` in use, at most */
} Paths;

typedef struct {
    double cutoff, scale, idle; /* idle: pJ per cycle, where energy and time have tables of their own */
    int within;                 /* ENERGY or TIME: it may be `most` and the other one is the objective; else their product */
    double most;
    const double *offset;       /* per table */
    Paths *paths;               /* of a box of machines, or 0: the cheapest path of one */
} Hunt;

/* Energy within a time, or time within an energy. MIXED tables bound a weighted sum of both: what the limited one leaves. */
static double objective_within(const Context *c, const Hunt *h, const double *value, double energy, double time) {
    if ((h->within == TIME ? time : energy) > h->most * (1 + 1e-12)) return INFINITY;
    double found = h->within == TIME ? energy : time;
    for (int t = 0; t < c->tables; t++)
        if (c->table[t].kind == MIXED) {
            const double a = c->table[t].energy, b = c->table[t].time, sum = value[t] + h->offset[t];
            const double left = h->within == TIME ? (sum - b * h->most) / a : (sum - a * h->most) / b;
            if (left > found) found = left;
        }
    return found;
}

/* The objective from bounds on the sums of all tables: the largest COST, or energy times time, or one within the other.
 * MIXED tables bound a weighted sum of energy and time: their product is least at one end of the line that this leaves. */
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
    if (h->within) return objective_within(c, h, value, energy, time);
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

/* Whether one known path is nowhere dearer than these sums: under no machine of the box does a path from here win. */
static int beaten(const Context *c, const Hunt *h, const double *value) {
    for (int64_t i = h->paths->count - 1; i >= 0; i--) {
        const double *known = h->paths->value + i * c->tables;
        int t = 0;
        while (t < c->tables && known[t] <= value[t] + h->offset[t] + 1e-12 * fabs(known[t])) t++;
        if (t == c->tables) return 1;
    }
    return 0;
}

/* The sum over all tables: an order in which nothing comes after what it beats. */
static double together(const Context *c, const Hunt *h, const double *value) {
    double found = 0;
    for (int t = 0; t < c->tables; t++) found += value[t] + h->offset[t];
    return found;
}

static int dominates(const Context *c, const Node *a, const Node *b) {
    for (int t = 0; t < c->tables; t++)
        if (c->table[t].kind != MIXED && a->spent[t] > b->spent[t] + 1e-12 * fabs(b->spent[t])) return 0;
    return 1;
}

static void visit(Context *c, Node n, const Hunt *h, int depth) {
    double value[TABLES];
    assert(n.stage >= 0 && n.stage < c->stages && n.point >= 0 && n.point < c->points);
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
    const double bound = h->paths ? together(c, h, value) : objective_of(c, h, value);
    if (h->paths ? beaten(c, h, value) : bound >= h->cutoff) return;
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

/* Whether nothing but finished outputs reach the tile of a crossing's child that settles here (`holds_partials` of
 * hwsim/nest/legal.py): every point arrives once if, since the output settled further in, no loop of outputs ran before
 * the last one that adds to them (`broken`). A tile that settles before that last loop would do as well behind it. */
static int settles_finished(const Context *c, const Node *n, int r) {
    return c->finishes[r] && !n->broken && c->reduced[n->point];
}

/* Room for a tile: bits taken so far in a shared memory while some of its operands are still to come. 0 where it overflows. */
static int take_room(const Context *c, Node *n, int r, int finished) {
    const Problem *p = &c->p;
    const Crossing *q = &p->crossing[r];
    const double bits = finished ? q->finished : q->bits;
    if (c->finishes[r] && elements_at(c, q, n->point) > most_elements(q, bits)) return 0;
    if (q->pool >= 0) {
        n->used[q->pool] += in_words(q, elements_at(c, q, n->point), bits);
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

/* The actions of a finished path, innermost first; how many there are, or -1 where there is no room for them. */
static int actions_of(const Context *c, int node, int32_t *path, int64_t most) {
    int many = 0;
    for (int i = node; c->node[i].parent >= 0; i = c->node[i].parent) many++;
    if (many > most) return -1;
    int left = many;
    for (int i = node; c->node[i].parent >= 0; i = c->node[i].parent) path[--left] = c->node[i].action;
    return many;
}

/* Keep a finished path of a box of machines; 0 where there is no room for it. */
static int keep_path(const Context *c, const Hunt *h, int node) {
    Paths *k = h->paths;
    if (k->count == k->room) return 0;
    const int many = actions_of(c, node, k->path + k->steps, k->step_room - k->steps);
    if (many < 0) return 0;
    for (int t = 0; t < c->tables; t++) k->value[k->count * c->tables + t] = c->node[node].spent[t] + h->offset[t];
    k->length[k->count - k->first] = many;
    k->steps += many;
    k->count++;
    return 1;
}

/* The nodes that follow one: a crossing settles or an array is passed, or a loop begins. */
static void expand(Context *c, const Node n, int32_t node, const Hunt *h) {
    const Problem *p = &c->p;
    const Stage *s = &c->stage[n.stage];
    for (int j = s->first; j < s->first + s->edges; j++) {
        const int r = c->edge[j].crossing, guard = c->edge[j].guard;
        if (guard >= 0 && !opens(c, &c->guard[guard], n.point)) continue;
        Node next = n;
        next.stage = c->edge[j].target;
        next.parent = node;
        if (r == GROWS) {
            if (!stands(c, &c->stage[next.stage])) continue;
            next.action = NOTHING;
        } else if (r == TURNS) {
            next.action = NOTHING;
        } else if (r == LEAVES) {
            const Stage *t = &c->stage[next.stage];
            next.action = NOTHING;
            for (int i = 0; i < p->crossings; i++)
                if (p->crossing[i].operand == t->left && p->crossing[i].child == t->around - 1) next.action = LEAVE + i;
        } else if (r == PASSED) {
            if (!may_pass(c, s->k, n.point)) continue;
            next.action = PASS + s->k;
        } else {
            const Crossing *q = &p->crossing[r];
            const double *cost = cost_in(c, s, r) + (size_t)n.point * c->lanes;
            if (!(cost[0] < INFINITY)) continue;
            next.action = SETTLE + r;
            if (is_window(c, q) && !q->forgets) {
                spend_full(c, &next, s, r);
                next.slot[q->child] = (r + 1) << 24 | window_point(c, n.point);
            } else {
                for (int t = 0; t < c->tables; t++) next.spent[t] += cost[t];
            }
            if (!take_room(c, &next, r, settles_finished(c, &n, r))) continue;
            /* a MAC that keeps nothing gives every step's sum away */
            if (q->operand == OUTPUT) next.broken = c->tracks && q->forgets && !c->reduced[n.point];
        }
        visit(c, next, h, depth_of(c, &next));
    }
    const int moves = moves_of(c, s);
    for (int i = 0; i < c->axes; i++) {
        const Axis *a = &c->axis[i];
        if (!(moves >> a->dim & 1) || n.point / a->stride % a->length == a->length - 1) continue;
        Node next = n;
        next.point += a->stride;
        next.parent = node;
        next.action = i;
        if (c->tracks && p->relevant[OUTPUT] >> a->dim & 1 && !c->reduced[n.point]) next.broken = 1;
        for (int slot = 0; slot < SLOTS; slot++)
            if (next.slot[slot]) {
                if (p->relevant[INPUT] >> a->dim & 1 && !c->in_rank[a->dim])
                    next.slot[slot] = 0;
                else
                    take_saving(c, &next, n.slot[slot], s->k, n.point, a->dim, a->prime);
            }
        visit(c, next, h, depth_of(c, &next));
    }
}

/* The cheapest path of one unrolling under the tables set, or, with `paths`, all that win under some machine of a box whose
 * corners are the tables (NONE_BELOW: they are complete). `offset` per table is added to its sum; `idle`: pJ per cycle;
 * `within`, `most`: as in Hunt.
 * Returns FOUND; NONE_BELOW the cutoff; GAVE_UP after too many nodes, *found is a bound; TOO_LARGE a lattice. `path`,
 * innermost first: axis of a step (its dim and prime in `loops`), SETTLE + crossing, PASS + array, LEAVE + a crossing that settles later, or NOTHING;
 * `length` entries at most, then how many there are. */
static int path_of(Context *c, const int32_t *spatial, const int32_t *spacing, const int32_t *steps, const double *offset,
                   double idle, int32_t within, double limit, double cutoff, int64_t most, double *found, int32_t *path, int32_t *length, int32_t *loops,
                int64_t *visited, Paths *paths) {
    *visited = 0;
    if (!set_row(c, spatial, spacing, steps) || c->points >= 1 << 24 || too_large(c)) return TOO_LARGE;
    c->lanes = lanes_for(c->tables);
    memset(c->pinned, 0, sizeof c->pinned);
    c->lost = 0;
    set_costs(c, 0);
    for (int l = c->tables; l < c->lanes; l++) fill_lane(c, l);
    set_bounds(c);
    if (c->lost) return TOO_LARGE;
    double roots[TABLES];
    for (int t = 0; t < c->tables; t++) {
        roots[t] = c->bound[t];
        if (!(roots[t] < INFINITY)) return NONE_BELOW;
    }
    Hunt h = {cutoff, 1, idle, within, limit, offset, paths};
    const double root = paths ? together(c, &h, roots) : objective_of(c, &h, roots);
    *found = root;
    if (!paths && !(root < cutoff)) return NONE_BELOW;
    h.scale = 1e11 / (root > 1 ? root : 1);
    c->nodes = c->heaped = 0;
    if (c->hash_size) memset(c->hash, -1, (size_t)c->hash_size * sizeof(int32_t));
    Node start = {0};
    start.parent = -1;
    visit(c, start, &h, 0);
    while (c->heaped) {
        const Entry e = heap_pop(c);
        if (c->lost) return TOO_LARGE;
        if (c->node[e.node].done) continue; /* something at its place is nowhere worse */
        const Node n = c->node[e.node];
        const Stage *s = &c->stage[n.stage];
        int alive = 0;
        for (int i = 0; i < SLOTS; i++) alive |= n.slot[i];
        if (!alive && ends(c, s, n.point) && paths) {
            if (!beaten(c, &h, n.spent) && !keep_path(c, &h, e.node)) return TOO_LARGE;
            continue;
        }
        if (!alive && ends(c, s, n.point)) {
            *found = objective_of(c, &h, n.spent);
            const int many = actions_of(c, e.node, path, *length);
            if (many < 0) return TOO_LARGE;
            *length = many;
            for (int i = 0; i < c->axes; i++) loops[2 * i] = c->axis[i].dim, loops[2 * i + 1] = c->axis[i].prime;
            *visited = c->nodes;
            assert(*found >= root - 1e-9 * fabs(root)); /* the bound is one */
            return FOUND;
        }
        if (c->nodes > most) {
            *found = (double)e.rank / h.scale;
            *visited = c->nodes;
            return GAVE_UP;
        }
        expand(c, n, e.node, &h);
    }
    for (int i = 0; paths && i < c->axes; i++) loops[2 * i] = c->axis[i].dim, loops[2 * i + 1] = c->axis[i].prime;
    *found = cutoff;
    *visited = c->nodes;
    return NONE_BELOW;
}

/* `path_of`, or NO_MEMORY. */
int mapper_path(Context *c, const int32_t *spatial, const int32_t *spacing, const int32_t *steps, const double *offset,
                double idle, int32_t within, double limit, double cutoff, int64_t most, double *found, int32_t *path, int32_t *length, int32_t *loops,
                int64_t *visited) {
    jmp_buf here, *const outside = rescue;
    rescue = &here;
    const int end = setjmp(here) ? NO_MEMORY
                                 : path_of(c, spatial, spacing, steps, offset, idle, within, limit, cutoff, most, found, path, length,
                                           loops, visited, 0);
    rescue = outside;
    return end;
}

/* The paths of one unrolling that win under some machine of a box: no known one is nowhere dearer at any of its corners,
 * which the tables are. `value` holds `*count` known paths' sums, and then those found, `room` at most; `path` their actions,
 * `length` each. Returns NONE_BELOW where they are complete, or as `path_of`. */
int mapper_paths(Context *c, const int32_t *spatial, const int32_t *spacing, const int32_t *steps, const double *offset, int64_t most,
                 double *value, int64_t *count, int64_t space, int32_t *path, int32_t *length, int64_t step_room, int32_t *loops,
                 int64_t *visited) {
    jmp_buf here, *const outside = rescue;
    Paths paths = {value, *count, space, path, length, *count, 0, step_room};
    double found;
    rescue = &here;
    const int end = setjmp(here) ? NO_MEMORY
                                 : path_of(c, spatial, spacing, steps, offset, 0, 0, 0, INFINITY, most, &found, path, length, loops,
                                           visited, &paths);
    rescue = outside;
    if (end != NO_MEMORY) *count = paths.count;
    return end;
}

/* ---- the quick search: quick/minima.py says the same in numpy ---------------------------------------------------------- */

/* In place, along each of `count` axes of an array: every entry becomes the least of those up to it. An axis has `outer`
 * blocks of `length` lines of `inner` entries. */
void mapper_below(double *value, int32_t count, const int64_t *outer, const int64_t *length, const int64_t *inner) {
    for (int32_t a = 0; a < count; a++) {
        const int64_t line = inner[a], block = length[a] * line;
        for (int64_t o = 0; o < outer[a]; o++) {
            double *const first = value + o * block;
            for (int64_t i = line; i < block; i++) first[i] = first[i - line] < first[i] ? first[i - line] : first[i];
        }
    }
}

/* into = moved + cost, or the least of that and what is there (`least`). Both are whole arrays of `rank` axes, 1 to DIMS + 1
 * of them; `stride` is that of cost, 0 along axes where it is the same. */
void mapper_arrive(double *into, const double *moved, const double *cost, int32_t rank, const int64_t *length,
                   const int64_t *stride, int32_t least) {
    const int64_t line = length[rank - 1], step = stride[rank - 1];
    int64_t lines = 1, at[DIMS + 1] = {0};
    for (int32_t d = 0; d < rank - 1; d++) lines *= length[d];
    for (int64_t l = 0; l < lines; l++, into += line, moved += line) {
        if (least) {
            for (int64_t i = 0; i < line; i++) {
                const double value = moved[i] + cost[i * step];
                into[i] = value < into[i] ? value : into[i];
            }
        } else {
            for (int64_t i = 0; i < line; i++) into[i] = moved[i] + cost[i * step];
        }
        for (int32_t d = rank - 2; d >= 0; d--) {
            cost += stride[d];
            if (++at[d] < length[d]) break;
            cost -= stride[d] * length[d];
            at[d] = 0;
        }
    }
}

#ifdef DEBUG_KERNEL
/* For tests: only so many blocks are given from now on. */
void mapper_allow(int64_t blocks) { blocks_left = blocks; }
#endif

int64_t mapper_sizes(int which) {
    const int64_t sizes[] = {sizeof(Problem), sizeof(Crossing), sizeof(Table), sizeof(Region)};
    return sizes[which];
}

/* Every enumerator of state.h, by which Python holds its reading of that file against what was compiled. */
#define SAID(name) {#name, name}
static const struct {
    const char *name;
    int64_t value;
} said[] = {
    SAID(DIMS), SAID(ARRAYS), SAID(LEVELS), SAID(CROSSINGS), SAID(HOLDERS), SAID(POOLS), SAID(SLOTS),
    SAID(AXES), SAID(WORDS), SAID(INPUT), SAID(OUTPUT), SAID(MAX_LENGTH), SAID(STAGES), SAID(EDGES),
    SAID(WINDOWS), SAID(LINES), SAID(SUMS), SAID(TABLES), SAID(LANES), SAID(SIDE), SAID(GROWN), SAID(PASSED),
    SAID(GROWS), SAID(TURNS), SAID(LEAVES), SAID(SETTLE), SAID(PASS), SAID(LEAVE), SAID(NOTHING), SAID(PATH),
    SAID(FOUND), SAID(NONE_BELOW), SAID(GAVE_UP), SAID(TOO_LARGE), SAID(NO_MEMORY), SAID(COST), SAID(ENERGY),
    SAID(TIME), SAID(MIXED), SAID(REGIONS), SAID(MEMORIES), SAID(FIXED), SAID(KEPT), SAID(GUARDS), SAID(FREE),
    SAID(EXACTLY), SAID(AT_MOST), SAID(ALL_LEFT),
};

/* The name and value of an enumerator; no name behind the last one. */
const char *mapper_enumerator(int which, int64_t *value) {
    if (which < 0 || which >= (int)(sizeof said / sizeof *said)) return 0;
    *value = said[which].value;
    return said[which].name;
}
