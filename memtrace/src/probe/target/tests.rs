//! Selectors against the processes of this machine, and their refusals.

use std::process::{Child, Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A child that runs until it is dropped, renamed by its link's name if one is
/// given.
struct Running(Child);

impl Running {
    /// `cat`, which has answered and so is past its start.
    fn start(program: &Path) -> Running {
        use std::io::{Read, Write};
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut byte = [0];
        child
            .stdin
            .as_mut()
            .expect("its input")
            .write_all(b"x")
            .expect("written");
        child
            .stdout
            .as_mut()
            .expect("its output")
            .read_exact(&mut byte)
            .expect("an answer");
        Running(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn refusal(selector: Selector) -> String {
    match selector.resolve() {
        Ok(pids) => panic!("{selector:?} selected {pids:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_process_by_id() {
    let child = Running::start(Path::new("cat"));
    let selected = Selector::Pid(child.pid()).resolve().expect("selected");
    assert_eq!(selected, [child.pid()]);
    let pid = child.pid();
    drop(child);
    let text = refusal(Selector::Pid(pid));
    assert!(
        text.starts_with(&format!("no process has the id {pid}")),
        "{text}"
    );
}

#[test]
fn ids_that_cannot_be_traced() {
    let own = std::process::id();
    assert!(refusal(Selector::Pid(own)).contains("cannot trace itself"));
    assert!(refusal(Selector::Pid(0)).contains("no process has the id 0"));

    let (sender, receiver) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let link = std::fs::read_link("/proc/thread-self").expect("own thread");
        let tid = link.file_name().and_then(|tid| tid.to_str()?.parse().ok());
        sender.send(tid).expect("sent");
        finished.recv().expect_err("hung up");
    });
    let tid: u32 = receiver.recv().expect("received").expect("a thread id");
    let text = refusal(Selector::Pid(tid));
    drop(finish);
    thread.join().expect("joined");
    assert!(
        text.contains(&format!("a thread of process {own}")),
        "{text}"
    );

    let mut zombie = Command::new("true").spawn().expect("a child");
    // Its end is announced before its parent takes note of it.
    while !Stat::read(zombie.id()).expect("still listed").ended {
        std::thread::yield_now();
    }
    let text = refusal(Selector::Pid(zombie.id()));
    zombie.wait().expect("taken note of");
    assert!(text.contains("has ended and only waits"), "{text}");
}

#[test]
fn a_process_by_name() {
    let directory = std::env::temp_dir().join(format!("memtrace-name-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    let program = directory.join("a-rather-long-server-name");
    let cat = ["/bin/cat", "/usr/bin/cat"]
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .expect("cat");
    std::fs::copy(cat, &program).expect("a copy");
    let child = Running::start(&program);
    let full = Selector::Name("a-rather-long-server-name".into()).resolve();
    let cut = Selector::Name("a-rather-long-s".into()).resolve();
    let text = refusal(Selector::Name("A-rather-lng-s".into()));
    let description = process::describe(child.pid()).expect("described");
    std::fs::remove_file(&program).expect("removed");
    let replaced = process::describe(child.pid()).expect("described");
    drop(child);
    std::fs::remove_dir(&directory).expect("removed");
    assert_eq!(full.expect("selected"), cut.expect("selected"));
    assert!(text.contains("a-rather-long-s"), "{text}");
    assert_eq!(Path::new(&description.exe), program);
    assert!(!description.exe_deleted && replaced.exe_deleted);
    assert_eq!(replaced.exe, description.exe);
    assert_eq!(description.comm, "a-rather-long-s");
}

#[test]
fn processes_by_cgroup() {
    let own = read_text(Path::new("/proc/self/cgroup")).expect("own cgroups");
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .or_else(|| own.lines().find_map(|line| line.splitn(3, ':').nth(2)))
        .expect("a cgroup");
    let child = Running::start(Path::new("cat"));
    let selector = Selector::Cgroup(PathBuf::from(path));
    let pids = selector.resolve().expect("selected");
    assert!(pids.contains(&child.pid()), "{pids:?}");
    assert!(!pids.contains(&std::process::id()));
    let directory = selector
        .cgroup_directory()
        .expect("found")
        .expect("a directory");
    let absolute = Selector::Cgroup(directory).resolve().expect("selected");
    assert!(absolute.contains(&child.pid()));
}

#[test]
fn ids_of_inner_namespaces_are_explained() {
    let one = TargetError::NoProcess {
        pid: 7,
        inner: vec![(4242, "nginx".into())],
    };
    assert_eq!(
        one.to_string(),
        "no process has the id 7; inside its own PID namespace process 4242 (nginx) is number 7: \
         use --pid 4242"
    );
    let two = TargetError::NoProcess {
        pid: 7,
        inner: vec![(4242, "nginx".into()), (5, "redis".into())],
    };
    assert!(two.to_string().contains("4242 (nginx), 5 (redis)"));
}

#[test]
fn alike_names() {
    let comms = [(11, "nginx".to_owned()), (12, "postgres".to_owned())];
    assert_eq!(named("nginx", &comms).expect("selected"), [11]);
    let Err(TargetError::NoName { similar, .. }) = named("ngnix", &comms) else {
        panic!("there is none of that name");
    };
    assert_eq!(similar, ["nginx"]);
    let Err(error) = named("zzz", &comms) else {
        panic!("there is none of that name");
    };
    assert!(error.to_string().contains("ps -eo pid,comm"));
}

proptest! {
    #[test]
    fn any_names_are_compared(a in ".{0,20}", b in ".{0,20}") {
        let (x, y) = (a.as_bytes(), b.as_bytes());
        prop_assert_eq!(edit_distance(x, y), edit_distance(y, x));
        prop_assert_eq!(edit_distance(x, x), 0);
        prop_assert!(edit_distance(x, y) <= x.len().max(y.len()));
        likeness(&a, &b);
        prop_assert!(cut(&a).chars().count() <= COMM_BYTES_MAX);
    }
}
