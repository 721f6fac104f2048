//! Methods on top of one another: those that go together keep their spelling, those that do not are refused with the reason.

use crate::codec::{CodecError, parse};

#[test]
fn methods_that_compose_are_spelled_as_they_are_read() {
    for (given, canonical) in [
        ("sparse:2:4+q4_k+eora:rank=64", "sparse:2:4+q4_k+eora:rank=64"),
        ("sparse:2:4+eora:rank=64", "sparse:2:4+eora:rank=64"),
        ("Sparse:2:4,method=SparseGPT + Q8_0 + svd:rank=16", "sparse:2:4,method=sparsegpt+q8_0+svd:rank=16"),
        ("sparse:50%+uniform:bits=4+eora:rank=8", "sparse:50%+uniform:bits=4,group=64+eora:rank=8"),
        ("sparse:75%,block=16+q4_0+eora:rank=8", "sparse:75%,block=16+q4_0+eora:rank=8"),
        ("entropy:uniform:bits=4+eora:rank=64", "entropy:uniform:bits=4,group=64+eora:rank=64"),
        ("entropy:bf16+svd:rank=32,factors=q8_0", "entropy:bf16+svd:rank=32,factors=q8_0"),
        ("spqr:bits=3+eora:rank=8", "spqr:bits=3+eora:rank=8"),
    ] {
        let codec = parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
        assert_eq!(codec.name(), canonical);
        assert_eq!(parse(canonical).unwrap().name(), canonical);
    }
}

#[test]
fn what_cannot_be_combined_is_refused_with_the_reason() {
    for (recipe, left, right, why) in [
        ("entropy:f16", "entropy", "f16", "no integer codes"),
        ("entropy:spqr", "entropy", "spqr:bits=3", "no integer codes"),
        ("entropy:entropy:bf16", "entropy", "entropy:bf16", "no integer codes"),
        ("entropy:sparse:50%+q4_0", "entropy", "sparse:50%+q4_0", "no integer codes"),
        ("entropy:lord:rank=8", "entropy", "lord:rank=8", "no integer codes"),
        ("entropy:f16+eora:rank=8", "entropy", "f16", "no integer codes"),
        ("sparse:50%+entropy:uniform:bits=4", "sparse:50%", "entropy", "a wrapper comes first"),
        ("q4_k+entropy:q4_k", "q4_k", "entropy", "a wrapper comes first"),
        ("q4_k+q5_k", "q4_k", "q5_k", "only a sparse codec's kept values"),
        ("q4_k+sparse:2:4", "q4_k", "sparse:2:4", "only a sparse codec's kept values"),
        ("entropy:q4_k+q5_k", "q4_k", "q5_k", "only a sparse codec's kept values"),
        ("q4_k+eora:rank=8+q4_k", "q4_k+eora:rank=8", "q4_k", "only a sparse codec's kept values"),
        ("sparse:50%+q4_0+q4_0", "sparse:50%+q4_0", "q4_0", "have a codec already"),
        ("sparse:2:4+q4_k+q4_k", "sparse:2:4+q4_k", "q4_k", "have a codec already"),
        ("sparse:50%+sparse:2:4", "sparse:50%", "sparse:2:4", "kept weights can be stored as"),
        ("sparse:2:4+sparse:50%", "sparse:2:4", "sparse:50%", "dense weights"),
        ("sparse:50%+spqr", "sparse:50%", "spqr:bits=3", "kept weights can be stored as"),
        ("sparse:2:4+nf4", "sparse:2:4", "nf4:block=64", "kept weights can be stored as"),
        ("q4_k+eora:rank=8+svd:rank=8", "q4_k+eora:rank=8", "svd", "it has a low-rank part already"),
        ("lord:rank=8+eora:rank=8", "lord:rank=8", "eora", "it has a low-rank part already"),
        ("eora:rank=8+q4_k", "nothing", "eora", "it adds to the codec before it"),
        ("q4_k+prune:ffn=25", "q4_k", "prune", "a stage changes the model before any codec"),
    ] {
        let error = parse(recipe).expect_err(recipe);
        let CodecError::Combination { left: l, right: r, why: reason } = &error else { panic!("{recipe}: {error}") };
        assert_eq!((l.as_str(), r.as_str()), (left, right), "{recipe}");
        assert!(reason.contains(why), "{recipe}: {reason}");
    }
}
