//! What users see: machines, modules, entries.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use crate::block::{LaunchInfo, SHARED_BASE};
use crate::config::{Config, Dims};
use crate::count::class::tensor_flops;
use crate::count::sectors::Touched;
use crate::decode::{Mode, Symbols, decode_entry};
use crate::error::{LoadError, MemoryError, Stop};
use crate::exec::lanes::host_is_wide;
use crate::memory::Memory;
use crate::parse::{Init, Unit, VarSpace, parse};
use crate::program::Program;
use crate::regs::LANES;
use crate::report::{Class, Counts, Line, Report};
use crate::schedule;

/// An emulated device: memory, and the settings of launches.
///
/// ```
/// use ptx_emulator::{Config, Dims, Machine};
///
/// let machine = Machine::new(Config::default());
/// let module = machine.load(
///     ".version 7.0\n.target sm_80\n.address_size 64\n\
///      .visible .entry twice(.param .u64 data) {\n\
///          .reg .b32 %r<3>; .reg .b64 %rd<4>;\n\
///          ld.param.u64 %rd1, [data];\n\
///          mov.u32 %r1, %tid.x;\n\
///          mul.wide.u32 %rd2, %r1, 4;\n\
///          add.s64 %rd3, %rd1, %rd2;\n\
///          ld.global.u32 %r2, [%rd3];\n\
///          add.u32 %r2, %r2, %r2;\n\
///          st.global.u32 [%rd3], %r2;\n\
///          ret;\n\
///      }",
/// )?;
/// let twice = module.entry("twice").expect("it is there");
/// let data = machine.alloc(12)?;
/// machine.write(data, bytes_of(&[1, 2, 3]))?;
/// machine.launch(&twice, Dims::linear(1, 3), &data.to_le_bytes())?;
/// let mut out = [0; 12];
/// machine.read(data, &mut out)?;
/// assert_eq!(&out, bytes_of(&[2, 4, 6]));
///
/// // A fourth thread would leave the allocation, and the report says where.
/// let stop = machine.launch(&twice, Dims::linear(1, 4), &data.to_le_bytes()).unwrap_err();
/// assert!(stop.to_string().contains("ptx line 10"), "{stop}");
/// # fn bytes_of(x: &[u32; 3]) -> &'static [u8] {
/// #     Box::leak(x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into_boxed_slice())
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Machine {
    config: Config,
    memory: Arc<Memory>,
}

impl Machine {
    /// A device without any allocation.
    pub fn new(config: Config) -> Machine {
        Machine { config, memory: Arc::default() }
    }

    /// A device without any allocation that shares a process with others: addresses of machines with different
    /// numbers are different, so that using one on the wrong machine is found out. [`Machine::new`] has number 0;
    /// only numbers below 128 make addresses that can be told from those of shared memory and parameters.
    pub fn numbered(config: Config, device: u8) -> Machine {
        Machine { config, memory: Arc::new(Memory::of_device(device & 0x7f)) }
    }

    /// The settings that [`Machine::launch`] uses.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Parses and decodes a whole PTX text and allocates its variables.
    ///
    /// # Errors
    /// Anything in the text that is not understood, by line and spelling.
    pub fn load(&self, ptx: &str) -> Result<Arc<Module>, LoadError> {
        let unit = parse(ptx)?;
        let globals = self.variables(&unit)?;
        let inner = Arc::new(Inner {
            files: Arc::new(unit.files.clone()),
            unit,
            globals,
            memory: Arc::downgrade(&self.memory),
        });
        let mode = Mode { san: false, count: false, wide: host_is_wide() };
        let mut entries = Vec::new();
        for (number, function) in inner.unit.functions.iter().enumerate() {
            if !function.entry || function.external {
                continue;
            }
            let program = inner.decode(number, mode)?;
            let mut params = Vec::new();
            let mut end = 0;
            for number in &function.params {
                let variable = &function.variables[*number as usize];
                let offset = (end as u32).next_multiple_of(variable.align.max(1));
                params.push(Param { offset, size: variable.bytes as u32, align: variable.align.max(1) });
                end = offset as u64 + variable.bytes;
            }
            let programs: [OnceLock<Arc<Program>>; 4] = Default::default();
            let (shared, local) = (program.shared_bytes, program.local_bytes);
            let _ = programs[0].set(Arc::new(program));
            entries.push(Entry {
                body: Arc::new(EntryBody {
                    name: function.name.clone(),
                    params,
                    param_bytes: end as u32,
                    max_threads: function.max_threads.unwrap_or(1024),
                    min_blocks: function.min_blocks,
                    static_shared_bytes: shared,
                    local_bytes: local,
                    number,
                    inner: inner.clone(),
                    programs,
                }),
            });
        }
        Ok(Arc::new(Module { entries, inner }))
    }

    /// Allocates and fills the variables of a module.
    fn variables(&self, unit: &Unit) -> Result<HashMap<String, (u64, u64)>, LoadError> {
        let mut globals = HashMap::new();
        for variable in &unit.variables {
            if variable.external || !matches!(variable.space, VarSpace::Global | VarSpace::Const) {
                continue;
            }
            let refuse = |problem: String| LoadError::new(variable.line, variable.name.as_str(), problem);
            let read_only = variable.space == VarSpace::Const;
            let address = self.memory.alloc(variable.bytes, read_only).map_err(|e| refuse(e.to_string()))?;
            if globals.insert(variable.name.clone(), (address, variable.bytes)).is_some() {
                return Err(refuse("defined twice".into()));
            }
        }
        for variable in &unit.variables {
            let Some((address, bytes)) = globals.get(&variable.name) else { continue };
            let mut data = vec![0u8; *bytes as usize];
            let mut at = 0usize;
            for init in &variable.init {
                match init {
                    Init::Bytes(value) => data[at..at + value.len()].copy_from_slice(value),
                    Init::Address { symbol, offset, bytes, .. } => {
                        let Some((target, _)) = globals.get(symbol) else {
                            let problem = "the address of something that is no variable of this module";
                            return Err(LoadError::new(variable.line, symbol.as_str(), problem));
                        };
                        let value = target.wrapping_add(*offset as u64).to_le_bytes();
                        let n = (*bytes as usize).min(8);
                        data[at..at + n].copy_from_slice(&value[..n]);
                    }
                }
                at += init.len() as usize;
            }
            // Static variables without a value are zero, as in C.
            let _ = self.memory.write(*address, &data);
        }
        Ok(globals)
    }

    /// Allocates device memory; the address is a multiple of 256 and the length is kept to the byte.
    ///
    /// # Errors
    /// When the host has no more memory.
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        self.memory.alloc(bytes, false)
    }

    /// Frees an allocation.
    ///
    /// # Errors
    /// When `address` is not the start of a live allocation.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        self.memory.free(address)
    }

    /// Copies device memory to the host.
    ///
    /// # Errors
    /// When the range is not inside one allocation.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.read(address, out)
    }

    /// Copies host memory to the device.
    ///
    /// # Errors
    /// When the range is not inside one allocation.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.memory.write(address, data)
    }

    /// Writes `pattern` `count` times, one after the other.
    ///
    /// # Errors
    /// When the range is not inside one allocation.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        self.memory.fill(address, pattern, count)
    }

    /// Copies device memory to device memory; the ranges may overlap.
    ///
    /// # Errors
    /// When a range is not inside one allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        self.memory.copy(to, from, bytes)
    }

    /// Start and length of the allocation that contains an address.
    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        self.memory.allocation(address)
    }

    /// Runs a kernel to its end with the machine's settings.
    ///
    /// # Errors
    /// An impossible launch, or whatever stopped it.
    pub fn launch(&self, entry: &Entry, dims: Dims, params: &[u8]) -> Result<Report, Stop> {
        self.launch_with(&self.config, entry, dims, params)
    }

    /// Runs a kernel to its end with other settings.
    ///
    /// # Errors
    /// As [`Machine::launch`].
    pub fn launch_with(
        &self,
        config: &Config,
        entry: &Entry,
        dims: Dims,
        params: &[u8],
    ) -> Result<Report, Stop> {
        self.launch_on(host_is_wide(), config, entry, dims, params)
    }

    /// As [`Machine::launch_with`], by the functions that a host without AVX2 and FMA has. For the test that both agree,
    /// which stands in tests/: in here it would have the whole interpreter compiled once more.
    #[doc(hidden)]
    pub fn launch_narrow(
        &self,
        config: &Config,
        entry: &Entry,
        dims: Dims,
        params: &[u8],
    ) -> Result<Report, Stop> {
        self.launch_on(false, config, entry, dims, params)
    }

    /// As [`Machine::launch_with`], on a host that has AVX2 and FMA or has not.
    fn launch_on(
        &self,
        wide: bool,
        config: &Config,
        entry: &Entry,
        dims: Dims,
        params: &[u8],
    ) -> Result<Report, Stop> {
        let body = &entry.body;
        let refuse = |text: String| Err(Stop::launch(&body.name, text));
        if !std::sync::Weak::ptr_eq(&body.inner.memory, &Arc::downgrade(&self.memory)) {
            return refuse("the kernel was loaded by another machine".into());
        }
        if dims.grid.contains(&0) || dims.block.contains(&0) {
            return refuse(format!("a grid of {:?} blocks of {:?} threads has none", dims.grid, dims.block));
        }
        if dims.grid[0] > i32::MAX as u32 || dims.grid[1] > 65535 || dims.grid[2] > 65535 {
            return refuse(format!("a grid of {:?} blocks; at most 2147483647, 65535, 65535", dims.grid));
        }
        let most = body.max_threads.min(config.arch.threads_per_block());
        if dims.threads() > most as u64 || dims.block[2] > 64 {
            return refuse(format!("a block of {:?} threads; at most {most}, and 64 along z", dims.block));
        }
        let shared = body.static_shared_bytes as u64 + dims.shared_bytes as u64;
        if shared > config.arch.shared_per_block_optin() as u64 {
            return refuse(format!(
                "{shared} bytes of shared memory; {} has {}",
                config.arch.name(),
                config.arch.shared_per_block_optin()
            ));
        }
        if params.len() as u64 != body.param_bytes as u64 {
            return refuse(format!(
                "{} bytes of parameters; the kernel takes {}",
                params.len(),
                body.param_bytes
            ));
        }
        let mode = Mode { san: config.checks, count: config.counters, wide };
        // Only for the host's own width; the other is for tests.
        let other = OnceLock::new();
        let slot = match wide == host_is_wide() {
            true => &body.programs[mode.san as usize + 2 * mode.count as usize],
            false => &other,
        };
        let program = match slot.get() {
            Some(program) => program.clone(),
            None => match body.inner.decode(body.number, mode) {
                Ok(program) => slot.get_or_init(|| Arc::new(program)).clone(),
                Err(error) => return refuse(error.to_string()),
            },
        };
        let number = if config.checks {
            self.memory.launch_checked()
        } else {
            self.memory.launch_unchecked();
            0
        };
        let talkers = if config.checks && program.ordered { dims.blocks() } else { 0 };
        let memory = self.memory.snapshot();
        let touched = config.counters.then(|| Touched::new(&memory));
        let info = Arc::new(LaunchInfo {
            program: program.clone(),
            memory,
            dims,
            arch: config.arch,
            tensor: config.tensor,
            seed: config.seed,
            patience: config.patience,
            number,
            communicates: (0..talkers).map(|_| AtomicBool::new(false)).collect(),
            touched,
        });
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let totals = schedule::launch(info.clone(), params, threads, config.counters)?;
        let mut report = Report {
            kernel: body.name.clone(),
            blocks: dims.blocks(),
            warp_instructions: totals.warp_instructions,
            lines: Vec::new(),
            buffers: info.touched.as_ref().map_or_else(Vec::new, |touched| touched.buffers(&info.memory)),
        };
        for (k, counts) in totals.tally.lines.into_iter().enumerate() {
            let place = program.places[k];
            let instruction = program.spellings[k].to_string();
            let tensor_flops = counts.lanes / LANES as u64 * tensor_flops(&instruction);
            report.lines.push(Line {
                line: place.line,
                source: program.source(place),
                class: Class::of(&instruction),
                instruction,
                counts: Counts { tensor_flops, ..counts },
            });
        }
        Ok(report)
    }
}

/// What entries need of their module.
struct Inner {
    unit: Unit,
    files: Arc<Vec<(u32, String)>>,
    globals: HashMap<String, (u64, u64)>,
    memory: std::sync::Weak<Memory>,
}

impl Inner {
    fn decode(&self, number: usize, mode: Mode) -> Result<Program, LoadError> {
        let symbols = Symbols { unit: &self.unit, globals: &self.globals, files: &self.files };
        decode_entry(&symbols, number, mode, SHARED_BASE)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.upgrade() {
            for (address, _) in self.globals.values() {
                let _ = memory.free(*address);
            }
        }
    }
}

/// A loaded PTX text. Its variables live as long as it or one of its entries does.
pub struct Module {
    entries: Vec<Entry>,
    inner: Arc<Inner>,
}

impl Module {
    /// The kernel of this name.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.name() == name).cloned()
    }

    /// All kernels, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().cloned()
    }

    /// Address and size of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.inner.globals.get(name).copied()
    }

    /// The `.target` that the text was compiled for.
    pub fn target(&self) -> &str {
        &self.inner.unit.target
    }
}

/// One kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Offset in the bytes given to [`Machine::launch`].
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

struct EntryBody {
    name: String,
    params: Vec<Param>,
    param_bytes: u32,
    max_threads: u32,
    min_blocks: Option<u32>,
    static_shared_bytes: u32,
    local_bytes: u32,
    number: usize,
    inner: Arc<Inner>,
    /// Decoded on first use, one for each combination of checks and counters.
    programs: [OnceLock<Arc<Program>>; 4],
}

/// A kernel of a module; cheap to clone.
#[derive(Clone)]
pub struct Entry {
    body: Arc<EntryBody>,
}

impl Entry {
    /// Its name in the PTX.
    pub fn name(&self) -> &str {
        &self.body.name
    }

    /// Its parameters, in order.
    pub fn params(&self) -> &[Param] {
        &self.body.params
    }

    /// Bytes of parameters that a launch takes.
    pub fn param_bytes(&self) -> u32 {
        self.body.param_bytes
    }

    /// `.maxntid`, or 1024.
    pub fn max_threads(&self) -> u32 {
        self.body.max_threads
    }

    /// `.minnctapersm`, if given.
    pub fn min_blocks(&self) -> Option<u32> {
        self.body.min_blocks
    }

    /// Bytes of static shared memory.
    pub fn static_shared_bytes(&self) -> u32 {
        self.body.static_shared_bytes
    }

    /// Bytes of local memory per thread.
    pub fn local_bytes(&self) -> u32 {
        self.body.local_bytes
    }
}
