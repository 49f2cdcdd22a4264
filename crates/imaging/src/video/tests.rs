use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::timeline::uniform_indices;

/// Frames of each generated film.
const N_FRAMES: usize = 50;

/// `name`, the encoder it needs, C, full scale, output options.
#[rustfmt::skip]
const FILMS: [(&str, &str, usize, f32, &str); 14] = [
    ("h264.mp4", "libx264", 3, 255.0, "-pix_fmt yuv420p -g 25 -bf 3"),
    ("h264.ts", "libx264", 3, 255.0, "-pix_fmt yuv420p -g 250 -bf 2"),
    ("hevc.mp4", "libx265", 3, 255.0, "-pix_fmt yuv420p -x265-params log-level=none"),
    ("hevc10.mkv", "libx265", 3, 65_535.0, "-pix_fmt yuv420p10le -x265-params log-level=none"),
    ("mpeg4.avi", "mpeg4", 3, 255.0, "-bf 2 -g 30"),
    ("mjpeg.mov", "mjpeg", 3, 255.0, "-q 3 -pix_fmt yuvj422p"),
    ("vp9.webm", "libvpx-vp9", 3, 255.0, "-deadline realtime -cpu-used 8 -auto-alt-ref 1"),
    ("vp8.webm", "libvpx", 3, 255.0, "-auto-alt-ref 1 -lag-in-frames 16 -b:v 100k"),
    ("av1.mkv", "libaom-av1", 3, 255.0, "-cpu-used 8 -usage realtime"),
    ("mpeg2.mpg", "mpeg2video", 3, 255.0, "-bf 2"),
    ("ffv1.mkv", "ffv1", 1, 255.0, "-pix_fmt gray"),
    ("ffv1_16.mkv", "ffv1", 1, 65_535.0, "-pix_fmt gray16le"),
    ("raw.avi", "rawvideo", 3, 255.0, "-pix_fmt bgr24"),
    ("prores.mov", "prores", 3, 65_535.0, ""),
];

/// Runs ffmpeg with `args` split at spaces; false if it fails.
fn ffmpeg(args: &str, out: &Path) -> bool {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-nostdin", "-y"])
        .args(args.split_whitespace())
        .arg(out);
    command.status().is_ok_and(|status| status.success())
}

fn has_ffmpeg() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !found {
        println!("skipped: ffmpeg is not installed");
    }
    found
}

/// Makes a film of `N_FRAMES` frames that all differ.
fn make(folder: &Path, name: &str, encoder: &str, options: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    let source = format!("-f lavfi -i testsrc2=size=64x48:rate=25,trim=end_frame={N_FRAMES}");
    let args = format!("{source} -c:v {encoder} {options}");
    if ffmpeg(&args, &path) {
        return Some(path);
    }
    println!("skipped {name}: this ffmpeg has no {encoder}");
    None
}

/// Decodes all frames in order, by a plain call of ffmpeg, to samples `[frame][H * W * C]`.
fn decode_all(path: &Path, n_channels: usize, full_scale: f32) -> Vec<Vec<f32>> {
    let deep = full_scale > 255.0;
    let format = match (n_channels, deep) {
        (1, false) => "gray",
        (1, true) => "gray16le",
        (_, false) => "rgb24",
        (_, true) => "rgb48le",
    };
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-map", "0:v:0", "-vsync", "passthrough", "-pix_fmt", format])
        .args(["-f", "rawvideo", "-"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let samples: Vec<f32> = if deep {
        let (pairs, _) = output.stdout.as_chunks::<2>();
        pairs
            .iter()
            .map(|raw| f32::from(u16::from_le_bytes(*raw)))
            .collect()
    } else {
        output
            .stdout
            .iter()
            .map(|&sample| f32::from(sample))
            .collect()
    };
    samples
        .chunks(64 * 48 * n_channels)
        .map(<[f32]>::to_vec)
        .collect()
}

/// Checks that frame `d` of `volume` is frame `wanted[d]` of the whole film, bit for bit.
fn check_frames(name: &str, volume: &Volume, film: &[Vec<f32>], wanted: &[usize]) {
    let [n_channels, n_depth, height, width] = volume.shape();
    assert_eq!(n_depth, wanted.len(), "{name}");
    for (depth, &index) in wanted.iter().enumerate() {
        for channel in 0..n_channels {
            let plane = volume.plane(channel, depth).unwrap();
            let expected: Vec<f32> = film[index]
                .iter()
                .skip(channel)
                .step_by(n_channels)
                .copied()
                .collect();
            assert_eq!(plane.len(), height * width);
            assert!(
                plane == expected,
                "{name}: frame {depth} is not frame {index} of the film"
            );
        }
    }
}

fn frames(n: usize) -> ReadOptions {
    ReadOptions {
        n_frames: Some(n),
        ..ReadOptions::default()
    }
}

fn has_code(volume: &Volume, code: Code) -> bool {
    volume.reasons.iter().any(|reason| reason.code == code)
}

#[test]
fn sampled_frames_are_those_of_a_full_decode_in_every_codec() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, encoder, n_channels, full_scale, options) in FILMS {
        let Some(path) = make(folder.path(), name, encoder, options) else {
            continue;
        };
        let film = decode_all(&path, n_channels, full_scale);
        assert_eq!(film.len(), N_FRAMES, "{name}");
        for n_wanted in [8, 200] {
            let volume = read_file(&path, &frames(n_wanted)).unwrap();
            assert_eq!(volume.full_scale, Some(full_scale), "{name}");
            check_frames(name, &volume, &film, &uniform_indices(N_FRAMES, n_wanted));
            assert_eq!(
                has_code(&volume, Code::FramesSampled),
                n_wanted < N_FRAMES,
                "{name}"
            );
            let spacing_s = volume.spacing[0].unwrap_or_else(|| panic!("{name}: no spacing"));
            let expected_s = 2.0 / n_wanted.min(N_FRAMES) as f64;
            assert!(
                (spacing_s - expected_s).abs() < 0.01 * expected_s,
                "{name}: {spacing_s} s"
            );
            assert!(!has_code(&volume, Code::DamagedFrames), "{name}");
            let lossless = matches!(encoder, "ffv1" | "rawvideo");
            assert_eq!(
                has_code(&volume, Code::LossyCompression),
                !lossless,
                "{name}"
            );
        }
        let volume = read_bytes(&std::fs::read(&path).unwrap(), &frames(3)).unwrap();
        check_frames(name, &volume, &film, &[8, 25, 41]);
        let lossless = matches!(encoder, "ffv1" | "rawvideo");
        assert_eq!(
            has_code(&volume, Code::LossyCompression),
            !lossless,
            "{name}"
        );
    }
}

#[test]
fn bare_streams_are_read_whole_or_sampled() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, encoder, codec, options) in [
        (
            "bare.h264",
            "libx264",
            Elementary::H264,
            "-pix_fmt yuv420p -bf 2",
        ),
        (
            "bare.hevc",
            "libx265",
            Elementary::Hevc,
            "-pix_fmt yuv420p -x265-params log-level=none",
        ),
        ("bare.m2v", "mpeg2video", Elementary::Mpeg2, "-bf 2"),
        (
            "contained.mp4",
            "libx264",
            Elementary::H264,
            "-pix_fmt yuv420p",
        ),
    ] {
        let Some(path) = make(folder.path(), name, encoder, options) else {
            continue;
        };
        let film = decode_all(&path, 3, 255.0);
        let bytes = std::fs::read(&path).unwrap();
        let whole = read_elementary(&bytes, codec, &ReadOptions::default()).unwrap();
        check_frames(name, &whole, &film, &(0..N_FRAMES).collect::<Vec<_>>());
        let sampled = read_elementary(&bytes, codec, &frames(7)).unwrap();
        check_frames(name, &sampled, &film, &uniform_indices(N_FRAMES, 7));
        let is_bare = name.starts_with("bare");
        assert_eq!(sampled.spacing[0].is_none(), is_bare, "{name}");
        // Padding, as DICOM adds to an odd length, changes nothing.
        let padded = [bytes, vec![0]].concat();
        let again = read_elementary(&padded, codec, &frames(7)).unwrap();
        assert!(again.values() == sampled.values(), "{name}");
    }
}

#[test]
fn a_variable_rate_shows_what_is_on_screen() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Frames 0, 1, 2, 20, 21, 45: shown from these 25ths of a second on.
    let keep = "-vf select='lt(n,3)+eq(n,20)+eq(n,21)+eq(n,45)' -vsync vfr";
    for name in ["vfr.mkv", "vfr.mp4"] {
        let options = format!("{keep} -pix_fmt yuv420p -bf 2");
        let Some(path) = make(folder.path(), name, "libx264", &options) else {
            continue;
        };
        let film = decode_all(&path, 3, 255.0);
        assert_eq!(film.len(), 6);
        let all = read_file(&path, &frames(6)).unwrap();
        check_frames(name, &all, &film, &[0, 1, 2, 3, 4, 5]);
        assert_eq!(all.spacing[0], None);
        // 46 or 47 25ths in 5 parts: centres at about 4.6, 13.9, 23, 32, 42.
        let sampled = read_file(&path, &frames(5)).unwrap();
        check_frames(name, &sampled, &film, &[2, 2, 4, 4, 4]);
        assert!((sampled.spacing[0].unwrap() - 0.37).abs() < 0.02);
    }
}

#[test]
fn rotation_in_the_container_is_applied() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = make(folder.path(), "plain.mp4", "libx264", "-pix_fmt yuv420p") else {
        return;
    };
    let rotated = folder.path().join("rotated.mp4");
    let copy = |option: &str, place: &str| {
        let input = path.display();
        let (before, after) = if place == "input" {
            (option, "")
        } else {
            ("", option)
        };
        ffmpeg(&format!("{before} -i {input} -c copy {after}"), &rotated)
    };
    // The option moved to the input in later versions of ffmpeg.
    assert!(copy("-metadata:s:v:0 rotate=90", "output"));
    if read_file(&rotated, &frames(2)).unwrap().shape() != [3, 2, 64, 48] {
        assert!(copy("-display_rotation 90", "input"));
    }
    assert_eq!(
        read_file(&rotated, &frames(2)).unwrap().shape(),
        [3, 2, 64, 48]
    );
}

#[test]
fn pixels_have_the_shape_that_the_container_states() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = "-pix_fmt yuv420p -vf setsar=4/3";
    let Some(path) = make(folder.path(), "anamorphic.mp4", "libx264", options) else {
        return;
    };
    let volume = read_file(&path, &frames(2)).unwrap();
    assert!((volume.pixel_aspect - 0.75).abs() < 1e-12);
    // The container's turn swaps height and width of a pixel, too.
    let rotated = folder.path().join("rotated.mp4");
    let input = path.display();
    let is_copied = ffmpeg(
        &format!("-i {input} -c copy -metadata:s:v:0 rotate=90"),
        &rotated,
    );
    let volume = read_file(&rotated, &frames(2)).unwrap();
    if is_copied && volume.shape() == [3, 2, 64, 48] {
        assert!((volume.pixel_aspect - 4.0 / 3.0).abs() < 1e-12);
    }
}

#[test]
fn long_films_of_single_frames_are_sought_in() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, encoder, options) in [
        ("seek.avi", "mjpeg", "-q 4 -pix_fmt yuvj420p"),
        ("seek.mkv", "ffv1", "-pix_fmt yuv420p"),
    ] {
        let path = folder.path().join(name);
        let source = "-f lavfi -i testsrc2=size=640x480:rate=25 -frames:v 300";
        if !ffmpeg(&format!("{source} -c:v {encoder} {options}"), &path) {
            println!("skipped {name}: this ffmpeg has no {encoder}");
            continue;
        }
        // 300 frames of 0.3 million pixels for one wanted frame: above the bound.
        let sought = read_file(&path, &frames(1)).unwrap();
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(&path)
            .args([
                "-vf",
                "select='eq(n,150)'",
                "-frames:v",
                "1",
                "-pix_fmt",
                "rgb24",
            ])
            .args(["-f", "rawvideo", "-"])
            .output()
            .unwrap();
        let film = [output
            .stdout
            .iter()
            .map(|&sample| f32::from(sample))
            .collect()];
        check_frames(name, &sought, &film, &[0]);
    }
}

#[test]
fn sound_alone_holds_no_pixels() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["sound.mp4", "sound.mkv", "sound.avi"] {
        let path = folder.path().join(name);
        assert!(ffmpeg("-f lavfi -i sine=duration=1", &path));
        let refused = read_file(&path, &frames(4)).unwrap_err();
        assert_eq!(refused.code(), Code::NoPixels, "{name}: {refused}");
    }
}

#[test]
fn limits_are_charged_before_decoding() {
    let path = fixture();
    for limits in [
        Limits {
            max_voxels: 3 * 4 * 64 * 48 - 1,
            ..Limits::default()
        },
        Limits {
            max_frames: 3,
            ..Limits::default()
        },
        Limits {
            max_bytes: 100,
            ..Limits::default()
        },
    ] {
        if !has_ffmpeg() {
            return;
        }
        let refused = read_file(
            &path,
            &ReadOptions {
                limits,
                n_frames: Some(4),
            },
        )
        .unwrap_err();
        assert!(matches!(refused, Error::LimitExceeded { .. }), "{refused}");
    }
}

#[test]
fn a_film_that_takes_too_long_is_given_up_in_time() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (short, path) = (
        folder.path().join("short.mp4"),
        folder.path().join("long.mkv"),
    );
    let source = "-f lavfi -i testsrc2=size=1920x1080:rate=25,trim=end_frame=12";
    let looped = format!("-stream_loop 500 -i {} -c copy", short.display());
    if !ffmpeg(&format!("{source} -c:v mpeg4 -q:v 31"), &short) || !ffmpeg(&looped, &path) {
        return;
    }
    let limits = Limits {
        max_seconds: 1,
        ..Limits::default()
    };
    let started = Instant::now();
    let refused = read_file(
        &path,
        &ReadOptions {
            limits,
            n_frames: Some(4),
        },
    )
    .unwrap_err();
    assert!(
        matches!(refused, Error::LimitExceeded { allowed: 1, .. }),
        "{refused}"
    );
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn a_child_that_never_answers_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, endless) in [("silent", "sleep 600"), ("loud", "yes 'packet|pts_time=1'")] {
        let program = folder.path().join(name);
        std::fs::write(&program, format!("#!/bin/sh\nexec {endless}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let programs = Programs {
            ffmpeg: program.clone().into(),
            ffprobe: program.into(),
        };
        let limits = Limits {
            max_seconds: 1,
            ..Limits::default()
        };
        let options = ReadOptions {
            limits,
            n_frames: Some(4),
        };
        let started = Instant::now();
        let refused = read_file_with(&programs, &fixture(), &options).unwrap_err();
        assert!(
            matches!(refused, Error::LimitExceeded { .. }),
            "{name}: {refused}"
        );
        assert!(started.elapsed().as_secs() < 20, "{name}");
    }
}

#[test]
fn missing_programs_name_the_package() {
    let programs = Programs {
        ffmpeg: "m3ret-none".into(),
        ffprobe: "m3ret-none".into(),
    };
    let refused = read_file_with(&programs, &fixture(), &frames(4)).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }));
    assert!(
        refused.to_string().contains("Debian package ffmpeg"),
        "{refused}"
    );
}

#[test]
fn a_cut_file_is_refused_or_gives_frames_and_never_panics() {
    if !has_ffmpeg() {
        return;
    }
    let bytes = std::fs::read(fixture()).unwrap();
    let whole = read_bytes(&bytes, &frames(4)).unwrap();
    assert_eq!(whole.shape(), [3, 4, 48, 64]);
    // Each cut costs a process where the length check does not catch it: it catches nearly all.
    for n in 0..bytes.len() {
        if let Ok(volume) = read_bytes(&bytes[..n], &frames(4)) {
            assert!(volume.values().len() <= whole.values().len(), "cut at {n}");
        }
    }
}

#[test]
fn damaged_files_never_panic_or_hang() {
    if !has_ffmpeg() {
        return;
    }
    let bytes = std::fs::read(fixture()).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..12 {
        let mut damaged = bytes.clone();
        for _ in 0..20 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = usize::try_from(state >> 33).unwrap() % damaged.len();
            damaged[at] ^= u8::try_from(state >> 20 & 0xff).unwrap();
        }
        let limits = Limits {
            max_seconds: 20,
            max_voxels: 1 << 22,
            ..Limits::default()
        };
        if let Ok(volume) = read_bytes(
            &damaged,
            &ReadOptions {
                limits,
                n_frames: Some(4),
            },
        ) {
            assert!(volume.values().len() <= 1 << 22);
        }
    }
}

#[test]
fn names_like_options_or_addresses_are_only_names() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["-i", "http:x", "a'b\"c d.mp4", "concat:a|b", "%03d.mp4"] {
        let path = folder.path().join(name);
        std::fs::copy(fixture(), &path).unwrap();
        assert!(read_file(&path, &frames(2)).is_ok(), "{name}");
    }
}

#[test]
fn messages_never_quote_the_file_or_its_name() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("DOE_JANE_1970.mp4");
    let mut bytes = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41".to_vec();
    bytes.extend(b"\0\0\0\x10mdatDOE^JANE");
    std::fs::write(&path, bytes).unwrap();
    let refused = read_file(&path, &frames(2)).unwrap_err();
    assert!(!refused.to_string().contains("JANE"), "{refused}");
    assert!(!format!("{refused:?}").contains("JANE"), "{refused:?}");
}

/// Eight frames of H.264 in MP4, synthetic.
fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/video/testsrc.mp4")
}
