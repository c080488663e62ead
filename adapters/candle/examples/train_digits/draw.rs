//! Drawing, shared with the examples of macula.

// A part is used here.
#![allow(dead_code)]

#[path = "../../../../examples/shared/canvas.rs"]
pub mod canvas;
#[path = "../../../../examples/shared/chart.rs"]
pub mod chart;
#[path = "../../../../examples/shared/heat.rs"]
pub mod heat;
#[path = "../../../../examples/shared/sheet.rs"]
pub mod sheet;
