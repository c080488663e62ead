//! Small matrices in f32 and their products.

/// Floats of a vector. Rows are padded to whole ones.
const LANES: usize = 8;
/// Rows of a product that are made together, so that a load of the right side serves them all.
const ROWS: usize = 4;

/// Row after row, each padded with zeros.
pub(crate) struct Matrix {
    data: Vec<f32>,
    rows: usize,
    columns: usize,
    pitch: usize,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        let pitch = columns.next_multiple_of(LANES);
        Self { data: vec![0.0; rows * pitch], rows, columns, pitch }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// A row, padding included.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.pitch..][..self.pitch]
    }

    /// A row, padding included.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.pitch..][..self.pitch]
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.columns, self.rows);
        for row in 0..self.rows {
            for column in 0..self.columns {
                out.data[column * out.pitch + row] = self.data[row * self.pitch + column];
            }
        }
        out
    }

    /// `self · right`.
    #[inline(always)]
    pub(crate) fn times(&self, right: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows, right.columns);
        add_product(&self.data, [self.pitch, 1], right, &mut out);
        out
    }

    /// `selfᵀ · right`.
    #[inline(always)]
    pub(crate) fn transposed_times(&self, right: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.columns, right.columns);
        add_product(&self.data, [1, self.pitch], right, &mut out);
        out
    }

    /// `out += selfᵀ · right`.
    #[inline(always)]
    pub(crate) fn add_transposed_times(&self, right: &Matrix, out: &mut Matrix) {
        add_product(&self.data, [1, self.pitch], right, out);
    }
}

/// `out[m] += Σ_k left[m · steps[0] + k · steps[1]] · right[k]`.
#[inline(always)]
fn add_product(left: &[f32], steps: [usize; 2], right: &Matrix, out: &mut Matrix) {
    for row in (0..out.rows).step_by(ROWS) {
        let wide = out.pitch / (2 * LANES) * (2 * LANES);
        for column in (0..wide).step_by(2 * LANES) {
            add_tile::<{ 2 * LANES }>(left, steps, right, [row, column], out);
        }
        if wide < out.pitch {
            add_tile::<LANES>(left, steps, right, [row, wide], out);
        }
    }
}

#[inline(always)]
fn add_tile<const WIDTH: usize>(
    left: &[f32],
    steps: [usize; 2],
    right: &Matrix,
    [row, column]: [usize; 2],
    out: &mut Matrix,
) {
    // Past the last row the last one is summed again, and dropped.
    let starts: [usize; ROWS] = std::array::from_fn(|i| (row + i).min(out.rows - 1) * steps[0]);
    let mut sums = [[0.0; WIDTH]; ROWS];
    for k in 0..right.rows {
        let Some(right) = right.row(k)[column..].first_chunk::<WIDTH>() else { return };
        for (sum, start) in sums.iter_mut().zip(starts) {
            let left = left[start + k * steps[1]];
            for lane in 0..WIDTH {
                sum[lane] += left * right[lane];
            }
        }
    }
    for (i, sum) in sums.iter().enumerate().take(out.rows - row) {
        out.row_mut(row + i)[column..][..WIDTH].iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(rows: usize, columns: usize, seed: usize) -> Matrix {
        let mut matrix = Matrix::zeros(rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                matrix.row_mut(row)[column] = ((row * 31 + column * 7 + seed) % 13) as f32 - 6.0;
            }
        }
        matrix
    }

    /// Small integers: every order of summation gives the same.
    #[test]
    fn products_of_any_size() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 8), (4, 2, 9), (9, 17, 16), (6, 1, 33)] {
            let (a, b) = (filled(m, k, 1), filled(k, n, 2));
            let transposed = a.transposed();
            let mut twice = a.times(&b);
            transposed.add_transposed_times(&b, &mut twice);
            for out in [a.times(&b), transposed.transposed_times(&b)] {
                assert_eq!((out.rows(), out.columns()), (m, n));
                for row in 0..m {
                    for column in 0..n {
                        let want: f32 = (0..k).map(|i| a.row(row)[i] * b.row(i)[column]).sum();
                        assert_eq!(out.row(row)[column], want);
                        assert_eq!(twice.row(row)[column], 2.0 * want);
                    }
                    assert!(out.row(row)[n..].iter().all(|x| *x == 0.0));
                }
            }
        }
    }
}
