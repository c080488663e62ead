//! What calls cost, counted by the emulator: cases that budgets assert and that the example `kernel_report` prints.
//!
//! An op joins with a file of its own that has `cases()`, a line in [`cases`], and tests beside them.

pub mod axial;
pub mod content;
pub mod gaussian;
pub mod gsa;
pub mod local;
pub mod local_bias;
pub mod value_mixture;

use macula::cudarc::driver::{CudaSlice, DevicePtr};
use macula::{Cost, Cuda, Element, Error, Workspace};
use ptx_emulator::{Arch, Buffer, Counts};
use ptx_emulator_driver::{Driver, Launch};

/// All cases, op by op.
pub fn cases() -> Vec<Case> {
    let all = [
        axial::cases(),
        content::cases(),
        gaussian::cases(),
        gsa::cases(),
        local::cases(),
        value_mixture::cases(),
    ];
    all.into_iter().flatten().collect()
}

/// One call of an op on the emulated H100, at a shape that is a multiple of its tiles.
pub struct Case {
    /// Name of the op.
    pub op: &'static str,
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Shape, settings and element type, in a few words.
    pub shape: String,
    /// What the mathematics needs.
    pub cost: Cost,
    /// Makes the call.
    pub call: Call,
}

/// Makes a call on data of its own. Returns the address of the workspace, if it lent one.
pub type Call = Box<dyn Fn(&Cuda) -> Result<Option<u64>, Error>>;

/// The emulated device that cases run on.
pub const ARCH: Arch = Arch::Sm90;

/// A counted call.
pub struct Measured {
    /// What it launched, in order.
    pub launches: Vec<Launch>,
    /// Address of the workspace.
    scratch: Option<u64>,
}

impl Case {
    /// Counts the call.
    pub fn measure(&self, driver: &Driver) -> Result<Measured, Error> {
        let ordinal = driver.devices().iter().position(|arch| *arch == ARCH);
        let on = Cuda::new(ordinal.expect("the look-alike has an H100"))?; // proof: it has one of each class
        let (scratch, launches) = driver.counted(|| (self.call)(&on));
        Ok(Measured { launches, scratch: scratch? })
    }

    /// Its name in tables and in complaints.
    pub fn name(&self) -> String {
        format!("{} {}, {}", self.op, self.pass, self.shape)
    }
}

impl Measured {
    /// Bytes of different sectors of the caller's tensors, read and written, added over the launches: each launch has to
    /// fetch them anew unless a cache helps.
    pub fn tensor_bytes(&self) -> u64 {
        self.launches.iter().map(|launch| self.launch_tensor_bytes(launch)).sum()
    }

    /// The same of one launch.
    pub fn launch_tensor_bytes(&self, launch: &Launch) -> u64 {
        touched(launch, |buffer| Some(buffer.address) != self.scratch)
    }

    /// The same of the workspace. What is written and read again within 16 MiB stays in the second-level cache.
    pub fn scratch_bytes(&self) -> u64 {
        self.launches.iter().map(|launch| self.launch_scratch_bytes(launch)).sum()
    }

    /// The same of one launch.
    pub fn launch_scratch_bytes(&self, launch: &Launch) -> u64 {
        touched(launch, |buffer| Some(buffer.address) == self.scratch)
    }

    /// Bytes of all requested sectors.
    pub fn requested_bytes(&self) -> u64 {
        self.launches.iter().map(|launch| launch.report.requested_bytes()).sum()
    }

    /// The counts of all launches.
    pub fn totals(&self) -> Counts {
        self.launches.iter().map(|launch| launch.report.totals()).sum()
    }
}

fn touched(launch: &Launch, wanted: impl Fn(&Buffer) -> bool) -> u64 {
    let wanted = launch.report.buffers.iter().filter(|buffer| wanted(buffer));
    wanted.map(|buffer| buffer.read_bytes() + buffer.written_bytes()).sum()
}

/// Device memory with so many numbers in [−1, 1).
pub fn filled<T: Element>(on: &Cuda, count: usize) -> Result<CudaSlice<T>, Error> {
    // Their size changes no count; that they are not all one number keeps maxima and sums from degenerating.
    let number = |i: usize| (i.wrapping_mul(0x9E37_79B1) >> 7 & 0xff) as f32 / 128.0 - 1.0;
    upload(on, (0..count).map(|i| T::from_f32(number(i))).collect())
}

/// Device memory that holds these elements.
pub fn upload<T: Element>(on: &Cuda, elements: Vec<T>) -> Result<CudaSlice<T>, Error> {
    on.stream().clone_htod(&elements).map_err(|e| Error::Device { what: e.to_string(), source: None })
}

/// Lends a workspace of so many bytes to a call and returns its address.
pub fn with_scratch(
    on: &Cuda,
    bytes: usize,
    call: impl FnOnce(Workspace<'_>) -> Result<(), Error>,
) -> Result<Option<u64>, Error> {
    if bytes == 0 {
        call(Workspace::none())?;
        return Ok(None);
    }
    let mut memory = on
        .stream()
        .clone_htod(&vec![0xffu8; bytes])
        .map_err(|e| Error::Device { what: e.to_string(), source: None })?;
    let address = memory.device_ptr(on.stream()).0;
    call(Workspace::new(&mut memory))?;
    Ok(Some(address))
}

/// What budgets are asserted with.
#[cfg(test)]
mod asserted {
    use super::{Case, Measured};

    impl Case {
        /// The call counted on the look-alike; `None` where tests run on a real GPU, which counts nothing.
        pub fn measure_in_test(&self) -> Option<Measured> {
            let driver = crate::common::cuda::look_alike()?;
            Some(self.measure(driver).unwrap_or_else(|e| panic!("{}: {e}", self.name())))
        }
    }

    impl Measured {
        /// Instructions of warps, of all launches.
        pub fn warp_instructions(&self) -> u64 {
            self.launches.iter().map(|launch| launch.report.warp_instructions).sum()
        }
    }

    #[test]
    fn no_two_cases_have_one_name() {
        let cases = super::cases();
        let names: std::collections::BTreeSet<String> = cases.iter().map(Case::name).collect();
        assert_eq!(names.len(), cases.len());
    }
}
