//! Tensors in memory of any layout, between guard bands.

use crate::common::uniform;
use macula::{Element, Layout, View, ViewMut};

/// Elements before and after a tensor that nothing may touch.
const GUARD: usize = 19;

/// How a tensor lies in memory, by a seed: dimensions in any order, with gaps, some of them backwards, and `broadcast` ones
/// with stride 0. Seed 0 is contiguous.
pub fn layout<const R: usize>(shape: [usize; R], seed: u64, broadcast: [bool; R]) -> Layout<R> {
    let mut draws = uniform(seed, 4 * R).into_iter().map(|x| ((x + 1.0) * 1e6) as usize);
    let mut draw = |below: usize| if seed == 0 { 0 } else { draws.next().unwrap() % below };
    let mut inwards: Vec<usize> = (0..R).collect();
    for i in 0..R {
        inwards.swap(i, i + draw(R - i));
    }
    let (mut strides, mut offset, mut step) = ([0; R], GUARD, 1);
    for k in inwards.into_iter().rev() {
        let (is_backwards, gap) = (draw(3) == 1, draw(3));
        if broadcast[k] {
            continue;
        }
        strides[k] = step as isize;
        if is_backwards {
            strides[k] = -strides[k];
            offset += step * (shape[k].max(1) - 1);
        }
        step = step * shape[k].max(1) + gap;
    }
    Layout::strided(shape, strides, offset)
}

/// How a map of pixels lies in memory, where kernels want neighbouring channels together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lies {
    Contiguous,
    /// Memory `[b, y, x, h, d]`, from this element on.
    HeadsLast(usize),
    /// Rows and pixels with odd gaps, rows backwards: nothing is aligned to 16 bytes.
    Gaps,
}

impl Lies {
    /// The layout of a map of shape `[b, h, y, x, d]`.
    pub fn layout(self, shape: [usize; 5]) -> Layout<5> {
        let [b, h, y, x, d] = shape;
        match self {
            Lies::Contiguous => layout(shape, 0, [false; 5]),
            Lies::HeadsLast(offset) => {
                let mut memory = Layout::contiguous([b, y, x, h, d]).permute([0, 3, 1, 2, 4]).unwrap();
                memory.offset = offset;
                memory
            }
            Lies::Gaps => {
                let pixel = d as isize + 1;
                let row = x as isize * pixel + 3;
                let (head, image) = (y as isize * row, (h * y) as isize * row);
                Layout::strided(shape, [image, head, -row, pixel, 1], (y - 1) * row as usize + 5)
            }
        }
    }
}

/// Memory for a tensor, poisoned wherever no element lies: every bit set is a NaN in all element types.
pub struct Memory<T, const R: usize> {
    data: Vec<T>,
    layout: Layout<R>,
}

fn poison<T: Element>() -> T {
    let mut value = T::zeroed();
    bytemuck::bytes_of_mut(&mut value).fill(0xff);
    value
}

impl<T: Element, const R: usize> Memory<T, R> {
    /// An output: all poison.
    pub fn poisoned(layout: Layout<R>) -> Self {
        let end = layout.span().map_or(0, |(_, high)| high as usize + 1);
        Self { data: vec![poison(); end.max(layout.offset) + GUARD], layout }
    }

    /// An input with these elements, in the order of indices; along strides of 0 the last one counts.
    pub fn holding(layout: Layout<R>, values: &[T]) -> Self {
        let mut memory = Self::poisoned(layout);
        for (at, value) in places(&layout).zip(values) {
            memory.data[at] = *value;
        }
        memory
    }

    pub fn view(&self) -> View<'_, T, R> {
        View::new(&self.data, self.layout).unwrap()
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, T, R> {
        ViewMut::new(&mut self.data, self.layout).unwrap()
    }

    /// All of the memory, guards and gaps included.
    pub fn all(&self) -> &[T] {
        &self.data
    }

    /// All of the memory, guards and gaps included.
    pub fn all_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The elements, in the order of indices.
    pub fn values(&self) -> Vec<T> {
        places(&self.layout).map(|at| self.data[at]).collect()
    }

    /// What lies between and around the elements is still poison.
    pub fn check_guards(&self, name: &str) -> Result<(), String> {
        let mut is_element = vec![false; self.data.len()];
        places(&self.layout).for_each(|at| is_element[at] = true);
        let poison = poison::<T>();
        for (at, (value, is_element)) in self.data.iter().zip(is_element).enumerate() {
            if !is_element && bytemuck::bytes_of(value) != bytemuck::bytes_of(&poison) {
                return Err(format!("{name}: memory {at} was written, layout {:?}", self.layout));
            }
        }
        Ok(())
    }
}

/// Where the elements lie, in the order of indices.
fn places<const R: usize>(layout: &Layout<R>) -> impl Iterator<Item = usize> {
    let layout = *layout;
    (0..layout.len()).map(move |mut at| {
        let mut place = layout.offset as isize;
        for k in (0..R).rev() {
            place += (at % layout.shape[k]) as isize * layout.strides[k];
            at /= layout.shape[k];
        }
        place as usize
    })
}
