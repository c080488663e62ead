//! Which nvcc a build takes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::nvcc::{Wish, candidates};
use crate::store::{Index, Line};

fn with<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    move |name| variables.get(name).map(OsString::from)
}

#[test]
fn macula_nvcc_is_a_path_or_a_word() {
    assert_eq!(Wish::read(&with(&[])), Wish::Search);
    assert_eq!(Wish::read(&with(&[("MACULA_NVCC", "off")])), Wish::Off);
    assert_eq!(Wish::read(&with(&[("MACULA_NVCC", "pip")])), Wish::Pip);
    assert_eq!(Wish::read(&with(&[("MACULA_NVCC", "/x/nvcc")])), Wish::Path(PathBuf::from("/x/nvcc")));
}

#[test]
#[cfg(unix)]
fn places_are_tried_in_the_promised_order() {
    let env = [
        ("PATH", "/bin:/usr/bin"),
        ("CUDA_PATH", "/opt/path"),
        ("CUDA_HOME", "/opt/home"),
        ("NVCC", "/opt/my-nvcc"),
    ];
    let found: Vec<(PathBuf, &str)> = candidates(&with(&env));
    let expected = [
        ("/opt/my-nvcc", "NVCC"),
        ("/opt/home/bin/nvcc", "CUDA_HOME"),
        ("/opt/path/bin/nvcc", "CUDA_PATH"),
        ("/bin/nvcc", "PATH"),
        ("/usr/bin/nvcc", "PATH"),
        ("/usr/local/cuda/bin/nvcc", "/usr/local/cuda"),
    ];
    assert_eq!(found, expected.map(|(path, from)| (Path::new(path).to_owned(), from)));
}

#[test]
fn an_index_reads_back() {
    let line = Line {
        name: "local_fwd_f16".to_owned(),
        param_bytes: 72,
        threads: 128,
        min_blocks: 2,
        shared_bytes: 4096,
        static_shared_bytes: 16,
        target: "sm_80".to_owned(),
        ptx_bytes: 12345,
        source: "kernels/local fwd.cu".to_owned(),
    };
    let index = Index { hash: "00ff".to_owned(), toolchain: "nvcc 13.0.88".to_owned(), lines: vec![line] };
    assert_eq!(Index::parse(&index.print()), Some(index.clone()));
    let cut = index.print().replace("kernels", "");
    assert_ne!(Index::parse(&cut), Some(index));
    assert_eq!(Index::parse("hash 00ff\n"), None);
    assert_eq!(Index::parse("hash 00ff\ntoolchain nvcc\nname 1 2\n"), None);
}
