//! Host memory in any layout: outputs cut into pieces that threads may write, and runs of elements read and written as f32.

use super::lanes::Lanes;
use crate::tensor::{HostView, HostViewMut};
use crate::{DType, Element};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::cmp::Reverse;

/// A part of an output that one thread writes: a box of indices, with the memory that they lie in to itself.
pub(crate) struct Piece<'a, T, const R: usize> {
    /// The box; its index 0 is index `first` of the whole.
    pub view: HostViewMut<'a, T, R>,
    pub first: [usize; R],
}

/// Cuts an output into pieces of at most `grain` indices along each dimension, as far as their memory can be told apart:
/// dimensions are cut from the outermost in memory inwards, and a cut into more than single indices is the last one,
/// because the dimensions inside it interleave. Cuts lie at multiples of the grain.
pub(crate) fn split<T, const R: usize>(
    view: HostViewMut<'_, T, R>,
    grain: [usize; R],
) -> Vec<Piece<'_, T, R>> {
    let mut inwards: Vec<usize> = (0..R).filter(|&k| view.layout.shape[k] > 1).collect();
    inwards.sort_by_key(|&k| Reverse(view.layout.strides[k].unsigned_abs()));
    let mut pieces = vec![Piece { view, first: [0; R] }];
    for k in inwards {
        pieces = pieces.into_iter().flat_map(|piece| cut(piece, k, grain[k])).collect();
        if grain[k] > 1 {
            break;
        }
    }
    pieces
}

/// Cuts a piece along `k`, the outermost dimension of its memory.
fn cut<T, const R: usize>(piece: Piece<'_, T, R>, k: usize, grain: usize) -> Vec<Piece<'_, T, R>> {
    let Piece { view: HostViewMut { data, layout }, first } = piece;
    let (size, stride) = (layout.shape[k], layout.strides[k]);
    let mut starts: Vec<usize> = (0..size).step_by(grain).collect();
    if stride < 0 {
        // Memory is handed out from its beginning, where the last indices are.
        starts.reverse();
    }
    let (mut rest, mut taken) = (data, 0usize);
    let mut pieces = Vec::with_capacity(starts.len());
    for start in starts {
        let mut part = layout;
        part.shape[k] = grain.min(size - start);
        part.offset = layout.offset.wrapping_add_signed(start as isize * stride);
        let (_, last) = part.span().unwrap_or((0, -1));
        let end = (last + 1) as usize;
        let (own, after) = rest.split_at_mut(end - taken);
        part.offset -= taken;
        (rest, taken) = (after, end);
        let mut first = first;
        first[k] += start;
        pieces.push(Piece { view: HostViewMut { data: own, layout: part }, first });
    }
    pieces
}

/// Reads `to.len()` elements from index `at` on, `stride` apart.
#[inline]
pub(crate) fn read<T: Element>(data: &[T], at: usize, stride: isize, to: &mut [f32]) {
    if stride == 1 {
        widen(&data[at..at + to.len()], to);
    } else {
        for (i, x) in to.iter_mut().enumerate() {
            *x = data[at.wrapping_add_signed(i as isize * stride)].to_f32();
        }
    }
}

/// Writes `from` to index `at` and on, `stride` apart.
#[inline]
pub(crate) fn write<T: Element>(data: &mut [T], at: usize, stride: isize, from: &[f32]) {
    if stride == 1 {
        narrow(from, &mut data[at..at + from.len()]);
    } else {
        for (i, x) in from.iter().enumerate() {
            data[at.wrapping_add_signed(i as isize * stride)] = T::from_f32(*x);
        }
    }
}

/// Copies; whole vectors without a call.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    match (<&Lanes>::try_from(from), <&mut Lanes>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

#[inline]
fn widen<T: Element>(from: &[T], to: &mut [f32]) {
    match T::DTYPE {
        DType::F32 => copy(bytemuck::cast_slice(from), to),
        DType::F16 => bytemuck::cast_slice::<T, f16>(from).convert_to_f32_slice(to),
        DType::Bf16 => {
            for (x, bits) in to.iter_mut().zip(bytemuck::cast_slice::<T, u16>(from)) {
                *x = f32::from_bits(u32::from(*bits) << 16);
            }
        }
    }
}

#[inline]
fn narrow<T: Element>(from: &[f32], to: &mut [T]) {
    match T::DTYPE {
        DType::F32 => copy(from, bytemuck::cast_slice_mut(to)),
        DType::F16 => bytemuck::cast_slice_mut::<T, f16>(to).convert_from_f32_slice(from),
        DType::Bf16 => bytemuck::cast_slice_mut::<T, bf16>(to).convert_from_f32_slice(from),
    }
}

/// A vector of parameters, whatever its stride.
pub(crate) fn short_vector(view: HostView<'_, f32, 1>) -> Vec<f32> {
    (0..view.layout.shape[0]).map(|i| view.data[view.layout.at([i])]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    /// Every index lies in exactly one piece, at the element that the whole layout gives it, and cuts obey the grain.
    #[track_caller]
    fn check(layout: Layout<3>, grain: [usize; 3], pieces_wanted: usize) {
        let (_, high) = layout.span().unwrap();
        let mut data: Vec<u32> = (0..=high as u32).collect();
        let mut seen = 0;
        let pieces = split(HostViewMut { data: &mut data, layout }, grain);
        assert_eq!(pieces.len(), pieces_wanted);
        for Piece { view, first } in &pieces {
            let shape = view.layout.shape;
            for at in 0..shape.iter().product() {
                let i = [at / shape[2] / shape[1], at / shape[2] % shape[1], at % shape[2]];
                let whole = [0, 1, 2].map(|k| first[k] + i[k]);
                assert_eq!(view.data[view.layout.at(i)] as usize, layout.at(whole));
                seen += 1;
            }
        }
        assert_eq!(seen, layout.len());
    }

    #[test]
    fn pieces_cover_the_output() {
        let dense = Layout::contiguous([3, 5, 4]);
        check(dense, [1, 2, 4], 9);
        check(dense, [2, 2, 4], 2);
        check(dense, [1, 1, 1], 60);
        // The innermost dimension of the index is the outermost one of memory.
        check(dense.permute([2, 1, 0]).unwrap(), [3, 2, 1], 9);
        // Flipped, with gaps, and with a stride of 0 along a single index.
        check(Layout::strided([3, 5, 4], [-50, -7, 1], 200), [1, 2, 4], 9);
        check(Layout::strided([1, 5, 4], [0, 1, 9], 3), [1, 5, 1], 4);
    }
}
