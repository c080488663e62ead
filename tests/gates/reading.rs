//! The reader of nvcc's text, on what nvcc 13.0 printed for two kernels with device functions, shared memory of both kinds
//! and comments that look like code (`sample.ptx`).

use crate::ptx::{Entry, rename_files, split, strip};

const SAMPLE: &str = include_str!("sample.ptx");

fn sample() -> (Entry, Entry) {
    let mut entries = split(SAMPLE).unwrap().into_iter();
    (entries.next().unwrap(), entries.next().unwrap())
}

/// The error of a sample in which `from` became `to`.
fn refusal(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "the sample holds {from:?}");
    split(&SAMPLE.replace(from, to)).unwrap_err()
}

#[test]
fn facts_are_read() {
    let (f32, f16) = sample();
    assert_eq!(split(SAMPLE).unwrap().len(), 2);
    assert_eq!((f32.name.as_str(), f16.name.as_str()), ("sample_fwd_f32", "sample_fwd_f16"));
    assert_eq!((f32.threads, f32.min_blocks), (128, 2));
    assert_eq!((f16.threads, f16.min_blocks), (64, 1));
    // A struct; and a pointer, a char and a double.
    assert_eq!((f32.param_bytes, f16.param_bytes), (24, 24));
    // `_smem_bytes` of zero has no initialiser. The static arrays are 33 floats, then two doubles at their alignment.
    assert_eq!((f32.shared_bytes, f32.static_shared_bytes), (512, 0));
    assert_eq!((f16.shared_bytes, f16.static_shared_bytes), (0, 136 + 16));
    assert_eq!(f32.target, "sm_80");
}

#[test]
fn an_image_holds_what_its_entry_needs_and_nothing_else() {
    let (f32, f16) = sample();
    // `often` calls `twice`, which reads `weights`.
    for needed in ["_Z5oftenfi(", "_Z5twicef(", ".b8 weights[12]", ".b8 dynamic[]", ".entry sample_fwd_f32("]
    {
        assert_eq!(f32.shipped.matches(needed).count(), 1, "{needed}");
        assert!(!f16.shipped.contains(needed), "{needed}");
    }
    assert!(f16.shipped.contains(".u32 counter;"));
    assert!(!f32.shipped.contains("counter"));
    for image in [&f32.shipped, &f16.shipped, &f32.lineinfo] {
        assert!(!image.contains("smem_bytes"));
        assert!(image.starts_with(".version 7.8\n.target sm_80\n.address_size 64\n"));
        assert_eq!(image.matches(".entry").count(), 1);
    }
}

#[test]
fn an_image_reads_back_as_itself() {
    for entry in split(SAMPLE).unwrap() {
        // Its size constant is gone, and needed again.
        let constant = format!(".const .align 4 .u32 {}_smem_bytes = {};\n", entry.name, entry.shared_bytes);
        let text = entry.shipped.replacen(".visible", &(constant + ".visible"), 1);
        let again = split(&text).unwrap().remove(0);
        assert_eq!(again, Entry { lineinfo: again.lineinfo.clone(), ..entry });
    }
}

#[test]
fn only_lines_comments_and_gaps_are_stripped() {
    let (f32, f16) = sample();
    for entry in [&f32, &f16] {
        assert!(entry.lineinfo.contains("\t.loc\t1 "));
        assert!(entry.lineinfo.contains(".file\t1 \"/home/user/crate/kernels/sample_fwd.cu\""));
        assert_eq!(strip(&entry.lineinfo), entry.shipped);
        assert_eq!(strip(&entry.shipped), entry.shipped);
        for gone in [".loc", ".file", "//", "/*", "\n\n"] {
            assert!(!entry.shipped.contains(gone), "{gone}");
        }
    }
    // Instructions, labels, strings and directives that begin like the stripped ones stay.
    for kept in ["$L__BB1_6:\n", "\t.pragma \"nounroll\";\n", " bar.sync 0;", "\tret;\n"] {
        assert!(f32.shipped.contains(kept), "{kept}");
    }
    assert_eq!(strip("\t.local .align 4 .b8 depot[4];\n\t.loc 1 2 3\n"), "\t.local .align 4 .b8 depot[4];\n");
    let section = "ret;\n\t.section\t.debug_str\n\t{\n$L__info_string0:\n.b8 95,0\n\n\t}\nret;\n";
    assert_eq!(strip(section), "ret;\nret;\n");
    assert_eq!(strip(".pragma \"a // b\";\n"), ".pragma \"a // b\";\n");
}

#[test]
fn debug_sections_stay_with_the_source_lines() {
    let section = "\t.section\t.debug_str\n\t{\n$L__info_string0:\n.b8 95,0\n\n\t}\n";
    for entry in split(&format!("{SAMPLE}{section}")).unwrap() {
        assert!(entry.lineinfo.contains(section.trim()));
        assert!(!entry.shipped.contains("debug_str") && !entry.shipped.contains("info_string"));
    }
}

#[test]
fn a_version_is_lowered_and_never_raised() {
    let version = |version: &str, target: &str| {
        let text = SAMPLE.replace(".version 9.0", &format!(".version {version}")).replace("sm_80", target);
        split(&text).unwrap()[0].shipped.lines().next().unwrap().to_owned()
    };
    assert_eq!(version("9.0", "sm_80"), ".version 7.8");
    assert_eq!(version("7.10", "sm_80"), ".version 7.8");
    assert_eq!(version("7.4", "sm_80"), ".version 7.4");
    assert_eq!(version("9.0", "sm_90a"), ".version 8.0");
}

#[test]
fn hints_that_old_assemblers_refuse_are_dropped() {
    let load = "\tld.global.f32 \t%f1, [%rd4];\n";
    assert!(SAMPLE.contains(load));
    let hinted = SAMPLE.replace(load, &format!("\t.pragma \"used_bytes_mask 15\";\n{load}"));
    assert_eq!(split(&hinted).unwrap(), split(SAMPLE).unwrap());
}

#[test]
fn source_paths_are_renamed_in_file_lines_only() {
    let text = "\t.file\t1 \"/a/kernels/x.cu\"\n.b8 \"/a/kernels/x.cu\";\n\t.file\t2 \"/a/y.cuh\", 17, 4\n";
    let renamed = rename_files(text, |path| path.replace("/a/", ""));
    assert_eq!(
        renamed,
        "\t.file\t1 \"kernels/x.cu\"\n.b8 \"/a/kernels/x.cu\";\n\t.file\t2 \"y.cuh\", 17, 4\n"
    );
}

#[test]
fn what_cannot_be_true_is_refused() {
    let cases = [
        (".maxntid 64, 1, 1\n", "", "entry `sample_fwd_f16`: no `.maxntid`"),
        (
            "sample_fwd_f32_smem_bytes",
            "sample_f32_smem_bytes",
            "`sample_fwd_f32_smem_bytes` must say how much",
        ),
        ("sample_fwd_f16_smem_bytes", "sample_f16_smem_bytes", "stands beside no entry `sample_f16`"),
        ("f16_smem_bytes;", "f16_smem_bytes = 16;", "is 16, but no dynamic shared memory is used"),
        ("smem_bytes = 512", "smem_bytes = what", "cannot read"),
        (".global .align 4 .u32 counter;", ".alias a, b;", "unknown at module level: `.alias a, b;`"),
        (".target sm_80", "", "no `.target`"),
        (".version 9.0", ".version nine", "cannot read"),
        (
            "counter], %r6;\n\t.loc\t1 25 1\n\tret;\n\n}",
            "counter], %r6;",
            "no end to `.visible .entry sample_fwd_f16(`",
        ),
    ];
    for (from, to, said) in cases {
        let why = refusal(from, to);
        assert!(why.contains(said), "{why:?} should hold {said:?}");
    }
}
