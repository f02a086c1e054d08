//! The user's own signals with real files and real servers.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::*;

/// Answers each connection with the same bytes, after reading the question.
fn server(answer: &'static str) -> String {
    serve(move |mut stream| {
        let _ = stream.write_all(answer.as_bytes());
    })
}

fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut question = [0_u8; 2048];
            let _ = (&stream).read(&mut question);
            answer(stream);
        }
    });
    format!("http://{address}/x?token=secret")
}

fn limits() -> Vec<Limit> {
    vec![Limit { name: "depth".into(), pause_at: Some(100.0), abort_at: None }]
}

/// Asks for a number (`depth` has a limit), and for a status.
fn ask(url: &str) -> (Reading, Reading) {
    let read = |name: &str| UrlSignal::read(&format!("{name}={url}"), &limits()).unwrap();
    let (number, status) = (read("depth"), read("health"));
    (number.ask(&agent(&number.url)), status.ask(&agent(&status.url)))
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come to be");
}

#[test]
fn a_number_counts_where_it_has_a_limit_and_the_status_where_not() {
    let url = server("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n 42.5\n");
    let (number, status) = ask(&url);
    assert_eq!((number.value, number.error.as_str()), (Some(42.5), ""));
    assert_eq!((status.value, status.error.as_str()), (Some(0.0), ""));
    assert_eq!((number.name.as_str(), number.source.as_str()), ("depth", "http"));
    assert!(number.of.ends_with("/x") && !number.of.contains("secret"), "{}", number.of);
}

#[test]
fn any_other_answer_pauses() {
    for (answer, number_error, status_error) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\n\nbusy\r\n",
            "503 Service Unavailable: busy",
            "503 Service Unavailable: busy",
        ),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found", "404 Not Found"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nNaN\n", "it is no number: NaN", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n4 2", "it is no number: 4 2", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", "it is no number: ", ""),
    ] {
        let (number, status) = ask(&server(answer));
        assert_eq!((number.value, number.error.as_str()), (None, number_error), "{answer}");
        let value = if status_error.is_empty() { 0.0 } else { 1.0 };
        assert_eq!((status.value, status.error.as_str()), (Some(value), status_error), "{answer}");
    }
}

#[test]
fn a_redirection_is_not_followed() {
    // There it would be told to go on.
    let there = server("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0");
    let here = serve(move |mut stream| {
        let _ =
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n");
    });
    let (number, status) = ask(&here);
    assert_eq!(number.value, None);
    assert_eq!(status.value, Some(1.0));
    assert_eq!(status.error, "302 Found: redirections are not followed");
}

#[test]
fn an_answer_without_end_or_too_late_is_none() {
    let endless = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        for _ in 0..10_000 {
            if stream.write_all(&[b'1'; 4096]).is_err() {
                return;
            }
        }
    });
    let (number, _) = ask(&endless);
    assert_eq!(number.value, None, "{number:?}");
    for (length, value) in [(4000, Some(7.0)), (5000, None)] {
        let long = serve(move |mut stream| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = write!(stream, "{head}{:>length$}", 7);
        });
        assert_eq!(ask(&long).0.value, value, "{length}");
    }
    // A byte now and then: no single read takes long, all together do.
    let drop_by_drop = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(300));
            if stream.write_all(b"1").is_err() {
                return;
            }
        }
    });
    let begun = Instant::now();
    let signal = UrlSignal::read(&format!("depth={drop_by_drop}"), &limits()).unwrap();
    let reading = signal.ask(&agent(&signal.url));
    assert_eq!(reading.value, None, "{reading:?}");
    assert!(begun.elapsed() < URL_LIMIT * 3, "{:?}", begun.elapsed());
}

#[test]
fn nobody_there_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (number, status) = ask(&format!("http://{address}/"));
    assert_eq!((number.value, status.value), (None, None));
    assert!(!status.error.is_empty());
    // Whom this machine does not trust is not believed.
    let plain = server("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0");
    let (_, status) = ask(&plain.replace("http://", "https://"));
    assert_eq!(status.value, None, "{status:?}");
}

#[test]
fn a_flag_file_pauses_with_its_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stop");
    let flag = FlagFile::new(path.clone());
    assert_eq!((flag.read().value, flag.read().error.as_str()), (Some(0.0), ""));
    for (text, said) in [("", THERE), ("\n backup until noon\nAda\n", "backup until noon")] {
        fs::write(&path, text).unwrap();
        let reading = flag.read();
        assert_eq!((reading.value, reading.error.as_str()), (Some(1.0), said), "{text:?}");
        assert_eq!(reading.of, path.display().to_string());
    }
    // Something else of that name, as a pipe that would never end, is not read.
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert_eq!((flag.read().value, flag.read().error.as_str()), (Some(1.0), THERE));
    // Whether it is there cannot be told: that is no leave to go on.
    let beyond_a_file = folder.path().join("file/stop");
    fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(FlagFile::new(beyond_a_file).read().value, None);
}

#[test]
fn the_watcher_has_the_newest_of_each_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stop");
    let url = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42");
    let own = OwnSignals {
        files: vec![FlagFile::new(path.clone())],
        urls: vec![UrlSignal::read(&format!("depth={url}"), &limits()).unwrap()],
    };
    let watcher = own.watch().unwrap();
    assert_eq!(watcher.readings().len(), 2, "also before the first answers");
    let values = || watcher.readings().iter().map(|reading| reading.value).collect::<Vec<_>>();
    wait_until("the first readings", || values() == [Some(0.0), Some(42.0)]);
    fs::write(&path, "stop it").unwrap();
    let written = Instant::now();
    wait_until("the flag", || values()[0] == Some(1.0));
    assert!(written.elapsed() < Duration::from_secs(1), "{:?}", written.elapsed());
    assert!(watcher.readings().iter().all(|reading| reading.age_ms < 1500));
}

#[test]
fn what_does_not_answer_grows_old_and_holds_up_no_other() {
    let mut watcher = Watcher::default();
    let reading = |name: &str| Reading::new(name, "", "test", Unit::Count, 1.0);
    let silent = Arc::new(Mutex::new(()));
    let held = silent.lock().unwrap();
    let (stuck, first) = (Arc::clone(&silent), reading("stuck"));
    watcher
        .add(FILE_EVERY, first.clone(), move || {
            drop(stuck.lock());
            first.clone()
        })
        .unwrap();
    let alive = reading("alive");
    watcher.add(Duration::from_millis(20), alive.clone(), move || alive.clone()).unwrap();
    thread::sleep(Duration::from_millis(600));
    let ages: Vec<u64> = watcher.readings().iter().map(|reading| reading.age_ms).collect();
    assert!(ages[0] >= 600 && ages[1] < 500, "{ages:?}");
    drop(held);
    wait_until("an answer", || watcher.readings()[0].age_ms < 500);
}

#[test]
fn the_threads_end_with_the_watcher() {
    let mut watcher = Watcher::default();
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let reading = Reading::new("x", "", "test", Unit::Count, 1.0);
    let first = reading.clone();
    watcher
        .add(Duration::from_millis(10), first, move || {
            let _ = &held;
            reading.clone()
        })
        .unwrap();
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(watcher);
    wait_until("its end", || Arc::strong_count(&alive) == 1);
}

#[test]
fn limits_are_those_of_what_says_yes_or_no() {
    let url = |text: &str| UrlSignal::read(text, &limits()).unwrap();
    let own = OwnSignals {
        files: vec![FlagFile::new("/a".into()), FlagFile::new("/b".into())],
        urls: vec![url("depth=http://h/"), url("health=https://h:8080/up")],
    };
    let names: Vec<String> = own.limits().into_iter().map(|limit| limit.name).collect();
    assert_eq!(names, [FLAG, "health"]);
    assert!(OwnSignals::default().limits().is_empty());
}

#[test]
fn what_is_no_address_is_refused() {
    for text in [
        "http://h/",
        "health",
        "health=",
        "health=h/x",
        "health=/x",
        "health=ftp://h/x",
        "health=http://ada:secret@h/x",
        "Health=http://h/",
        "lag=http://h/",
        "=http://h/",
        "health=http://h /",
    ] {
        let error = UrlSignal::read(text, &[]).expect_err(text);
        assert!(!error.contains("secret"), "{error}");
    }
}
