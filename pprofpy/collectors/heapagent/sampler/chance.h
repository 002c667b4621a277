/* When the next sample is due, and how much each stands for. No libm: its symbol versions would tie us to one glibc. */

static double natural_log(double x)
{
    union { double d; uint64_t u; } bits = {x};
    int exponent = (int)(bits.u >> 52) - 1022;
    bits.u = (bits.u & 0xfffffffffffffULL) | 0x3fe0000000000000ULL; /* 0.5 <= d < 1 */
    double z = (bits.d - 0.75) / (bits.d + 0.75), z2 = z * z, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * z2 + 1.0 / k;
    return 2 * z * sum + exponent * 0.693147180559945309 - 0.287682072451780927;
}

static double one_minus_exp_minus(double x) /* x >= 0 */
{
    if (x > 40) return 1;
    int halvings = 0;
    while (x > 0.25) x /= 2, halvings++;
    double sum = 0;
    for (int k = 12; k >= 1; k--) sum = (1 - sum) * x / k; /* x - x^2/2! + x^3/3! - ... */
    while (halvings--) sum = sum * (2 - sum); /* 1 - (1 - s)^2 */
    return sum;
}

static int64_t draw(void)
{
    if (!mine.seed) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        mine.seed = ((uintptr_t)&mine ^ ((uint64_t)now.tv_nsec << 20) ^ now.tv_sec) * 0x9E3779B97F4A7C15ULL | 1;
        for (int i = 0; i < 8; i++) mine.seed ^= mine.seed << 13, mine.seed ^= mine.seed >> 7, mine.seed ^= mine.seed << 17;
    }
    mine.seed ^= mine.seed << 13;
    mine.seed ^= mine.seed >> 7;
    mine.seed ^= mine.seed << 17;
    return (int64_t)(-natural_log(((mine.seed >> 11) + 0.5) / 9007199254740992.0) * rate) + 1;
}

static int64_t weight(uint64_t size) /* in parts of FIXED_POINT: how many objects a sample of this size stands for */
{
    return (int64_t)(FIXED_POINT / one_minus_exp_minus((double)(size ? size : 1) / rate) + 0.5);
}

static int64_t weighted_bytes(uint64_t size)
{
    return (int64_t)((double)size / one_minus_exp_minus((double)(size ? size : 1) / rate) + 0.5);
}
