//! Loops as vector instructions.

/// A loop that is worth it. Small ones can be closures; a larger one needs a type of its own with `#[inline(always)]` on
/// [`Loop::call`], since the compiler does not inline a large closure, and what is not inlined is not vectorised.
pub use pulp::NullaryFnOnce as Loop;

/// Runs a loop compiled for the widest vectors that the processor has. The bytes that come out do not depend on the
/// processor: no operation is fused or reordered.
#[inline(always)]
pub fn vectorised<L: Loop>(work: L) -> L::Output {
    struct Inlined<L>(L);
    impl<L: Loop> pulp::WithSimd for Inlined<L> {
        type Output = L::Output;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> L::Output {
            self.0.call()
        }
    }
    pulp::Arch::new().dispatch(Inlined(work))
}
