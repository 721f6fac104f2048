// Counts what was done, in 64 bits: the one addition that wraps the low word carries into the high one.

@group(0) @binding(9) var<storage, read_write> executed: array<atomic<u32>, 2>;   // low word, high word

fn tally(n: u32) {
    let before = atomicAdd(&executed[0], n);
    if (before + n < before) {
        atomicAdd(&executed[1], 1u);
    }
}
