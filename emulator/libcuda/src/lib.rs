#![doc = include_str!("../README.md")]
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

/// One exported jump for each function of the look-alike driver.
macro_rules! export {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!("jmp {}", sym ptx_emulator_driver::exports::$name)
        }
    )*};
}

ptx_emulator_driver::for_each_driver_function!(export);
