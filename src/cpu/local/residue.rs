//! Residue classes of a map, and the part of a tensor that lies in one.

use super::Maps;
use crate::Layout;
use crate::config::local::Sliding;
use crate::tensor::{HostView, HostViewMut};

/// The rows r, r + dilation, … and columns likewise: a map of its own, on which the window is not dilated.
pub(super) struct Class {
    /// The window in the class.
    pub window: Sliding,
    first: [usize; 2],
    step: [usize; 2],
}

impl Class {
    pub fn all(window: &Sliding, [_, _, y, x, _]: [usize; 5]) -> impl Iterator<Item = Self> + use<> {
        let window = *window;
        // Steps beyond the map are all alike.
        let step = [window.dilation[0].min(y), window.dilation[1].min(x)];
        let firsts =
            (0..step[0]).flat_map(move |first_y| (0..step[1]).map(move |first_x| [first_y, first_x]));
        firsts.map(move |first| Self { window: window.dilated([1, 1]), first, step })
    }

    fn layout<const R: usize>(&self, whole: &Layout<R>) -> Layout<R> {
        let mut layout = *whole;
        for i in 0..2 {
            let (first, step) = (self.first[i], self.step[i]);
            layout.shape[2 + i] = (whole.shape[2 + i] - first).div_ceil(step);
            layout.strides[2 + i] = whole.strides[2 + i] * step as isize;
            layout.offset = layout.offset.wrapping_add_signed(whole.strides[2 + i] * first as isize);
        }
        layout
    }

    pub fn of<'a, T, const R: usize>(&self, whole: &HostView<'a, T, R>) -> HostView<'a, T, R> {
        HostView { data: whole.data, layout: self.layout(&whole.layout) }
    }

    pub fn of_mut<'a, T, const R: usize>(
        &self,
        whole: &'a mut HostViewMut<'_, T, R>,
    ) -> HostViewMut<'a, T, R> {
        HostViewMut { layout: self.layout(&whole.layout), data: whole.data }
    }

    pub fn maps<'a, T>(&self, whole: &Maps<'a, T>) -> Maps<'a, T> {
        Maps { q: self.of(&whole.q), k: self.of(&whole.k), v: self.of(&whole.v) }
    }
}
