//! A machine on which a plan's launches run with all checks.

use macula::plan::{Launch, Plan, Ptr};
use ptx_emulator::{Config, Dims, Machine, Stop};

/// Bytes of every operand: more than any plan here uses, but for those of very many blocks.
const OPERAND_BYTES: u64 = 1 << 18;
const OPERAND_BYTES_OF_MANY: u64 = 5 << 19;
/// Blocks that are very many.
const MANY: u32 = 512;
const OPERANDS: u8 = 21;

pub struct Bench {
    machine: Machine,
    operands: Vec<u64>,
    workspace: u64,
}

impl Bench {
    pub fn new(plan: &Plan) -> Bench {
        let is_large = plan.launches.iter().any(|launch| launch.grid > MANY);
        let bytes = if is_large { OPERAND_BYTES_OF_MANY } else { OPERAND_BYTES };
        // One host thread each: plans run side by side.
        let machine = Machine::new(Config::default().checks(true).threads(1));
        let operand = || {
            let address = machine.alloc(bytes).unwrap();
            // Positive as a radius, finite as every element type.
            machine.fill(address, &1.5f32.to_le_bytes(), bytes / 4).unwrap();
            address
        };
        let operands = (0..OPERANDS).map(|_| operand()).collect();
        let workspace = machine.alloc(plan.workspace_bytes as u64).unwrap();
        Bench { machine, operands, workspace }
    }

    /// Runs the kernel of that text as a launch of the plan, or the first `blocks` of it.
    pub fn run(&self, text: &str, launch: &Launch, blocks: u32, seed: u64) -> Result<(), Stop> {
        let module = self.machine.load(text).unwrap();
        let entry = module.entry(launch.kernel).unwrap();
        let threads = macula::kernel::find(launch.kernel).unwrap().threads;
        let config = Config::default().checks(true).threads(1).seed(seed);
        let dims = Dims {
            grid: [launch.grid.min(blocks), 1, 1],
            block: [threads, 1, 1],
            shared_bytes: launch.shared_bytes,
        };
        self.machine.launch_with(&config, &entry, dims, &self.params(launch)).map(|_| ())
    }

    /// The parameters with addresses for pointers.
    fn params(&self, launch: &Launch) -> Vec<u8> {
        let word = |pointer: Ptr| bytemuck::cast::<Ptr, u64>(pointer);
        let mut bytes = launch.params().to_vec();
        for field in bytes.chunks_exact_mut(8) {
            let value = u64::from_le_bytes(field.try_into().unwrap());
            let operand = (0..OPERANDS).find(|&k| word(Ptr::operand(k)) == value);
            let offset = value.wrapping_sub(word(Ptr::workspace(0)));
            if let Some(k) = operand {
                field.copy_from_slice(&self.operands[usize::from(k)].to_le_bytes());
            } else if offset < 1 << 32 {
                field.copy_from_slice(&(self.workspace + offset).to_le_bytes());
            }
        }
        bytes
    }
}
