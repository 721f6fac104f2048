// Eight consecutive weights of a row: the unit in which codec modules hand decoded weights to kernels.
struct Oct {
    a: vec4<f32>, // weights 8o .. 8o + 3 of a run
    b: vec4<f32>, // weights 8o + 4 .. 8o + 7
}
