//! Reference of [`value_mixture`](crate::value_mixture): weights by position, and the sum of maps that they weigh.

use super::Num;

/// Sizes of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Shape of vs, `[m, b, h, y, x, e]`.
    pub vs: [usize; 6],
    /// Rows of the table of rows, and of the table of columns.
    pub sites: [usize; 2],
    /// Channels of the tables.
    pub r: usize,
}

/// The tables: `[rows, r]`, `[columns, r]` and `[m, r]`.
#[derive(Clone, Copy)]
pub struct Tables<'a, R> {
    /// By row.
    pub emb_row: &'a [R],
    /// By column.
    pub emb_col: &'a [R],
    /// By mixture.
    pub nu: &'a [R],
}

/// Results of [`backward`].
pub struct Grads<R> {
    /// `[m, b, h, y, x, e]`.
    pub dvs: Vec<R>,
    /// `[rows, r]`.
    pub demb_row: Vec<R>,
    /// `[columns, r]`.
    pub demb_col: Vec<R>,
    /// `[m, r]`.
    pub dnu: Vec<R>,
}

/// p, `[m, rows, columns]`.
pub fn weights<R: Num>(shape: Shape, tables: Tables<'_, R>) -> Vec<R> {
    let (m, [rows, columns], r) = (shape.vs[0], shape.sites, shape.r);
    let mut p = vec![R::of(0.0); m * rows * columns];
    for site in 0..rows * columns {
        let (yi, xi) = (site / columns, site % columns);
        let score = |mi: usize| {
            R::sum((0..r).map(|ri| {
                (tables.emb_row[yi * r + ri] + tables.emb_col[xi * r + ri]) * tables.nu[mi * r + ri]
            }))
        };
        let scores: Vec<R> = (0..m).map(score).collect();
        let top = scores.iter().copied().reduce(R::max).unwrap_or(R::of(0.0));
        let powers: Vec<R> = scores.iter().map(|&s| (s - top).exp()).collect();
        let sum = R::sum(powers.iter().copied());
        for (mi, &power) in powers.iter().enumerate() {
            p[mi * rows * columns + site] = power / sum;
        }
    }
    p
}

/// The site of pixel `ni`.
fn site_of(shape: Shape, ni: usize) -> usize {
    let ([.., x, _], [rows, columns]) = (shape.vs, shape.sites);
    ni / x % rows * columns + ni % x % columns
}

/// `o`, `[b, h, y, x, e]`, given the weights.
pub fn forward<R: Num>(shape: Shape, vs: &[R], p: &[R]) -> Vec<R> {
    let ([m, b, h, y, x, e], [rows, columns]) = (shape.vs, shape.sites);
    let (n, count) = (y * x, b * h * y * x * e);
    let element = |i: usize| {
        let site = site_of(shape, i / e % n);
        R::sum((0..m).map(|mi| p[mi * rows * columns + site] * vs[mi * count + i])).stored()
    };
    (0..count).map(element).collect()
}

/// Gradients of everything that the op reads, given its weights and the gradient `d_o` of its output.
pub fn backward<R: Num>(shape: Shape, vs: &[R], tables: Tables<'_, R>, p: &[R], d_o: &[R]) -> Grads<R> {
    let ([m, _, _, y, x, e], [rows, columns], r) = (shape.vs, shape.sites, shape.r);
    let sites = rows * columns;
    let mut dvs = Vec::with_capacity(vs.len());
    let mut terms = vec![Vec::new(); m * sites];
    for mi in 0..m {
        for (i, &g) in d_o.iter().enumerate() {
            let at = mi * sites + site_of(shape, i / e % (y * x));
            dvs.push((p[at] * g).stored());
            terms[at].push(g * vs[mi * d_o.len() + i]);
        }
    }
    let dp: Vec<R> = terms.into_iter().map(R::sum).collect();
    let inner: Vec<R> = (0..sites)
        .map(|site| R::sum((0..m).map(|mi| p[mi * sites + site] * dp[mi * sites + site])))
        .collect();
    let dscore = |mi: usize, site: usize| p[mi * sites + site] * (dp[mi * sites + site] - inner[site]);
    // Sums of the scores' gradients over a row, and over a column, of the tables.
    let by_row = |mi: usize, yi: usize| R::sum((0..columns).map(|xi| dscore(mi, yi * columns + xi)));
    let by_column = |mi: usize, xi: usize| R::sum((0..rows).map(|yi| dscore(mi, yi * columns + xi)));
    let demb_row = (0..rows * r)
        .map(|i| R::sum((0..m).map(|mi| by_row(mi, i / r) * tables.nu[mi * r + i % r])))
        .collect();
    let demb_col = (0..columns * r)
        .map(|i| R::sum((0..m).map(|mi| by_column(mi, i / r) * tables.nu[mi * r + i % r])))
        .collect();
    let dnu = (0..m * r)
        .map(|i| {
            let (mi, ri) = (i / r, i % r);
            let of_rows = (0..rows).map(|yi| by_row(mi, yi) * tables.emb_row[yi * r + ri]);
            let of_columns = (0..columns).map(|xi| by_column(mi, xi) * tables.emb_col[xi * r + ri]);
            R::sum(of_rows.chain(of_columns))
        })
        .collect();
    Grads { dvs, demb_row, demb_col, dnu }
}
