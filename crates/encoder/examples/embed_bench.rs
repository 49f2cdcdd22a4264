//! Times one network with random weights: `embed_bench PRESET DEPTH BATCH ROUNDS PRECISION THREADS`.

use m3ret_encoder::{Model, Precision, RunOptions, View};
use m3ret_imaging::Input;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize| arguments[i].parse::<usize>();
    let precision = match arguments[5].as_str() {
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        _ => Precision::F32,
    };
    let options = RunOptions {
        precision: Some(precision),
        n_threads: Some(number(6)?),
    };
    let model = Model::random(&arguments[1], 0, &options)?;
    let shape = [3, number(2)?, 224, 224];
    let values = (0..shape.iter().product())
        .map(|i: usize| (i * 37 % 101) as f32 / 100.0)
        .collect();
    let input = Input::new(values, shape)?;
    let views = vec![
        View {
            input: &input,
            left_out: &[]
        };
        number(3)?
    ];
    for _ in 0..number(4)? {
        let start = std::time::Instant::now();
        let tokens = model.tokens(&views)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{seconds:.4} {}", tokens[0].cls()[0]);
    }
    Ok(())
}
