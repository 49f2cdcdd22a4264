//! A writer that is killed at random moments: what it acknowledged is there, and nothing is torn.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed; the child speaks by standard output"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use m3ret_search::{Batch, Gallery, Maker, Numbers, Setup, View, ViewVectors, Writer, verify};

const WIDTH: usize = 16;
/// Says to the child which gallery to write to.
const GALLERY: &str = "M3RET_TEST_GALLERY";
const N_ROUNDS: u64 = 250;

/// One change: rows of number `step` are added, half of them with a further vector each second time, older ones
/// removed, or all is compacted.
fn change(writer: &mut Writer, step: u64) {
    match step % 4 {
        3 if step % 12 == 3 => writer.compact().unwrap(),
        3 => {
            let present: Vec<String> = writer
                .gallery()
                .rows()
                .take(7)
                .map(|row| writer.gallery().id(row).unwrap().to_owned())
                .collect();
            writer.remove(&present).unwrap();
        }
        _ => {
            let ids: Vec<String> = (0..30).map(|i| format!("{step}-{i}")).collect();
            let mut vectors = vec![0.0; 30 * WIDTH];
            for (i, vector) in vectors.chunks_mut(WIDTH).enumerate() {
                vector[i % WIDTH] = 1.0;
            }
            let n_views = if step % 4 == 1 { 15 } else { 0 };
            let of: Vec<View> = (0..n_views).map(|row| View { row, name: 0 }).collect();
            let names = ["front".to_owned()];
            let batch = Batch {
                vectors: &vectors,
                ids: &ids,
                views: ViewVectors {
                    names: &names,
                    of: &of,
                    vectors: &vectors[..of.len() * WIDTH],
                },
                ..Batch::default()
            };
            writer.add(batch).unwrap();
        }
    }
}

/// Not a test of its own: what the killed process runs.
#[test]
fn child_that_writes_until_it_is_killed() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how the parent speaks to the child"
    )]
    let Some(folder) = std::env::var_os(GALLERY) else {
        return;
    };
    let mut writer = Writer::open(Path::new(&folder)).unwrap();
    let first = writer.gallery().generation() * 4;
    for step in first.. {
        println!("\nbegin {step} {} .", ids(writer.gallery()));
        change(&mut writer, step);
        println!("\nend {step} {} .", ids(writer.gallery()));
        std::io::stdout().flush().unwrap();
    }
}

fn ids(gallery: &Gallery) -> String {
    let ids: BTreeSet<&str> = gallery.rows().map(|row| gallery.id(row).unwrap()).collect();
    ids.into_iter().collect::<Vec<_>>().join(",")
}

/// Lets a child write for a while from its first line that begins with `awaited` on, kills it, and returns what
/// it said. How long a busy machine takes to start the child does not count.
fn run_and_kill(path: &Path, awaited: &'static str, pause: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(GALLERY, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = lines.map_while(Result::ok).inspect(|line| {
            if line.starts_with(awaited) {
                // Nobody listens after the first one.
                let _ = sender.send(());
            }
        });
        lines.collect::<Vec<_>>()
    });
    receiver
        .recv_timeout(Duration::from_secs(60))
        .expect("the child writes");
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Checks that what is found is what the last line says, or what the next change makes of it;
/// returns whether the child was killed amid a change.
fn check(last: &str, found: &str, round: u64) -> bool {
    let mut words = last.split(' ');
    let is_amid = words.next() == Some("begin");
    let step: u64 = words.next().unwrap().parse().unwrap();
    let state = words.next().unwrap();
    if state != found {
        let next = if is_amid { step } else { step + 1 };
        let set = |ids: &str| -> BTreeSet<String> {
            ids.split(',')
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let (before, after) = (set(state), set(found));
        let n_more = after.difference(&before).count();
        let n_less = before.difference(&after).count();
        let expected = if next % 4 == 3 {
            (0, before.len().min(7))
        } else {
            (30, 0)
        };
        assert_eq!((n_more, n_less), expected, "round {round}, change {next}");
    }
    is_amid
}

#[test]
fn a_writer_may_be_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let setup = Setup {
        maker: Maker {
            fingerprint: "test".into(),
            model: "test".into(),
            precision: "f32".into(),
        },
        width: WIDTH,
        numbers: Numbers::F32,
    };
    drop(Writer::create(&path, setup).unwrap());
    let (mut n_amid, mut n_acknowledged) = (0, 0);
    for round in 0..N_ROUNDS {
        // Every second child has ended a change before its time begins.
        let awaited = if round % 2 == 0 { "begin " } else { "end " };
        let pause = Duration::from_micros(round * 7919 % 23_000);
        let said = run_and_kill(&path, awaited, pause);
        let found = ids(&Gallery::open(&path).unwrap());
        // A line that the kill cut has no end.
        let is_whole = |line: &&String| {
            (line.starts_with("begin ") || line.starts_with("end ")) && line.ends_with(" .")
        };
        if let Some(last) = said.iter().rev().find(is_whole) {
            n_amid += u64::from(check(last, &found, round));
            n_acknowledged += said.iter().filter(|line| line.starts_with("end ")).count();
        }
        if round % 10 == 0 {
            let report = verify(&path).unwrap();
            assert!(report.is_good(), "round {round}: {report:?}");
        }
    }
    assert!(verify(&path).unwrap().is_good());
    assert!(
        n_amid > N_ROUNDS / 10,
        "only {n_amid} of {N_ROUNDS} were killed amid a change"
    );
    assert!(n_acknowledged > 100, "{n_acknowledged} changes in all");
}
