//! Every host gives the same bits: the functions for AVX2 and FMA against those for any x86-64.

use ptx_emulator::{Config, Dims, Machine};

#[test]
fn hosts_agree() {
    let machine = Machine::new(Config::default());
    let run = |text: &str, name: &str, dims: Dims, inputs: usize, bytes: u64, numbers: &[u32]| {
        let module = machine.load(text).expect("loads");
        let entry = module.entry(name).expect("a kernel");
        let mut params = Vec::new();
        let mut state = 7u64;
        for _ in 0..inputs {
            let data: Vec<u8> = (0..bytes)
                .map(|k| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // f16 and f32 of moderate size: the upper byte of each is small.
                    if k % 2 == 1 { (state >> 60) as u8 + 0x30 } else { (state >> 56) as u8 }
                })
                .collect();
            let address = machine.alloc(bytes).expect("memory");
            machine.write(address, &data).expect("in bounds");
            params.extend(address.to_le_bytes());
        }
        let outputs: Vec<u64> = (inputs..if name == "math" { 2 } else { 5 })
            .map(|_| machine.alloc(8 * bytes).expect("memory"))
            .collect();
        outputs.iter().for_each(|address| params.extend(address.to_le_bytes()));
        numbers.iter().for_each(|number| params.extend(number.to_le_bytes()));
        params.resize(entry.param_bytes() as usize, 0);
        let mut results = Vec::new();
        for narrow in [true, false] {
            for (checks, counters) in [(false, false), (true, false), (false, true), (true, true)] {
                let config = Config::default().checks(checks).counters(counters);
                outputs.iter().for_each(|a| machine.fill(*a, &[0], 8 * bytes).expect("in bounds"));
                let launched = if narrow {
                    machine.launch_narrow(&config, &entry, dims, &params)
                } else {
                    machine.launch_with(&config, &entry, dims, &params)
                };
                launched.unwrap_or_else(|stop| panic!("{stop}"));
                let mut all = Vec::new();
                for address in &outputs {
                    let mut out = vec![0; 8 * bytes as usize];
                    machine.read(*address, &mut out).expect("in bounds");
                    all.extend(out);
                }
                results.push(all);
            }
        }
        assert!(results[0].iter().any(|byte| *byte != 0), "{name} writes something");
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{name} differs");
    };
    let dims = Dims { grid: [3, 1, 1], block: [128, 1, 1], shared_bytes: 5 * 64 * 64 * 2 };
    let scale = (std::f32::consts::LOG2_E / 8.0).to_bits();
    run(include_str!("../ptx/flash_fwd.ptx"), "flash_fwd", dims, 3, 150 * 128, &[150, 15, 4, scale]);
    let dims = Dims { grid: [10, 8, 1], block: [64, 1, 1], shared_bytes: 0 };
    run(include_str!("../ptx/math.ptx"), "math", dims, 1, 600 * 4, &[600]);
}
