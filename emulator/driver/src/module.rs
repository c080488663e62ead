//! Modules and their functions.

use crate::image::{self, Refusal};
use crate::occupancy::{self, Needs};
use crate::profile::{Profile, SHARED_PER_BLOCK};
use crate::state::{Device, Handle, State, new_handle};
use crate::status::Error;
use ptx_emulator::{Entry, Module};
use std::collections::HashMap;
use std::sync::Arc;

/// A module that was loaded into a context.
pub struct LoadedModule {
    pub context: Handle,
    pub device: usize,
    pub module: Arc<Module>,
    /// Number of its `.target`.
    pub target: u32,
    /// Functions that were asked for; asking again gives the same one.
    pub functions: HashMap<String, Handle>,
}

/// An entry of a loaded module, with the attributes that a program can set.
#[derive(Clone)]
pub struct Function {
    pub context: Handle,
    pub device: usize,
    pub module: Handle,
    pub entry: Entry,
    pub target: u32,
    /// Dynamic shared memory that a launch may ask for: what 48 KiB leave, until the program opts in to more.
    pub max_dynamic_shared: u32,
    pub carveout: i32,
}

impl Function {
    fn new(module: &LoadedModule, handle: Handle, entry: Entry) -> Function {
        Function {
            context: module.context,
            device: module.device,
            module: handle,
            target: module.target,
            max_dynamic_shared: SHARED_PER_BLOCK - entry.static_shared_bytes(),
            carveout: -1,
            entry,
        }
    }

    /// Registers of a thread: the most that launch bounds leave to ptxas; see [`occupancy::most_registers`].
    pub fn registers(&self) -> u32 {
        occupancy::most_registers(self.entry.max_threads(), self.entry.min_blocks().unwrap_or(1))
    }

    /// What a block of this function takes.
    pub fn needs(&self, threads: u32, dynamic_shared: u32) -> Needs {
        let shared_bytes = self.entry.static_shared_bytes().saturating_add(dynamic_shared);
        Needs { threads, registers: self.registers(), shared_bytes }
    }

    /// `CUfunction_attribute` number `attribute`.
    pub fn attribute(&self, attribute: u32, profile: &Profile) -> Result<i32, Error> {
        let (major, minor) = profile.arch.capability();
        let value = match attribute {
            0 => self.entry.max_threads(),
            1 => self.entry.static_shared_bytes(),
            2 => 0, // CONST_SIZE_BYTES: parameters are not counted, and user constants are in the module
            3 => self.entry.local_bytes(),
            4 => self.registers(),
            5 => self.target,
            6 => major * 10 + minor,
            8 => self.max_dynamic_shared,
            9 => return Ok(self.carveout),
            7 | 10..=15 => 0, // CACHE_MODE_CA and clusters
            _ => return Err(Error::InvalidValue),
        };
        i32::try_from(value).map_err(|_| Error::InvalidValue)
    }

    /// Sets `CUfunction_attribute` number `attribute`.
    pub fn set_attribute(&mut self, attribute: u32, value: i32, profile: &Profile) -> Result<(), Error> {
        match attribute {
            8 => {
                let most = profile.shared_optin() - self.entry.static_shared_bytes();
                let wanted = u32::try_from(value).map_err(|_| Error::InvalidValue)?;
                if wanted > most {
                    return Err(Error::InvalidValue);
                }
                self.max_dynamic_shared = wanted;
            }
            9 if (-1..=100).contains(&value) => self.carveout = value,
            _ => return Err(Error::InvalidValue),
        }
        Ok(())
    }
}

impl State {
    /// Parses and checks an image and loads it into the current context.
    pub fn load_module(&self, bytes: &[u8]) -> Result<Handle, Refusal> {
        let refused = |error| Refusal { error, log: String::new() };
        let (context, device) = {
            let mut registry = self.registry();
            registry.refuse_during_capture().map_err(refused)?;
            let (context, of) = registry.current().map_err(refused)?;
            (context, of.device)
        };
        let loaded = self.parse_module(bytes, context, device);
        if let Err(refusal) = &loaded
            && self.settings().print
        {
            eprintln!("ptx-emulator: module refused: {}\n{}", refusal.error, refusal.log);
        }
        let loaded = loaded?;
        let handle = new_handle();
        self.registry().modules.insert(handle, loaded);
        Ok(handle)
    }

    fn parse_module(&self, bytes: &[u8], context: Handle, device: usize) -> Result<LoadedModule, Refusal> {
        let text = image::text(bytes)?;
        let head = image::head(text)?;
        let Device { profile, machine, .. } = &self.devices[device];
        image::check_head(&head, profile, self.settings().cuda_version)?;
        let twin = self.with_lines(text);
        let module = machine.load(twin.as_deref().unwrap_or(text)).map_err(|error| Refusal {
            error: Error::InvalidPtx,
            log: format!("ptxas application ptx input, error   : {error}"),
        })?;
        image::check_entries(&module)?;
        Ok(LoadedModule { context, device, module, target: head.target.0, functions: HashMap::new() })
    }

    /// The function of a module's entry.
    pub fn function(&self, module: Handle, name: &str) -> Result<Handle, Error> {
        let mut registry = self.registry();
        registry.current()?;
        let of = registry.modules.get_mut(&module).ok_or(Error::InvalidHandle)?;
        if let Some(&known) = of.functions.get(name) {
            return Ok(known);
        }
        let entry = of.module.entry(name).ok_or(Error::NotFound)?;
        let function = Function::new(of, module, entry);
        let handle = new_handle();
        of.functions.insert(name.to_owned(), handle);
        registry.functions.insert(handle, function);
        Ok(handle)
    }
}
