//! Which targets share a route, and that their number stays bounded.

use proptest::prelude::*;

use super::*;

fn text(target: &str) -> String {
    template(target).to_string()
}

#[test]
fn variable_segments_fold() {
    // Each kind of identifier becomes its placeholder.
    for (target, route) in [
        ("/users/17", "/users/{id}"),
        ("/users/17/", "/users/{id}/"),
        ("/a/-5/b/1,2,3", "/a/{id}/b/{id}"),
        ("/o/123e4567-e89b-12d3-a456-426614174000", "/o/{uuid}"),
        (
            "/o/123E4567-E89B-12D3-A456-426614174000.json",
            "/o/{uuid}.json",
        ),
        ("/d/2024-01-01", "/d/{date}"),
        ("/d/2024-01-01T10:00:00Z/x", "/d/{date}/x"),
        ("/d/2024-01", "/d/{date}"),
        ("/c/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/c/{hex}"),
        ("/c/0xdeadbeef", "/c/{hex}"),
        ("/c/deadbe3f", "/c/{hex}"),
        ("/c/abcdefabcdefabcd", "/c/{hex}"),
        ("/t/dQw4w9WgXcQ7aB3kLm9p", "/t/{token}"),
        ("/t/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/t/{token}"),
        (
            "/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
            "/t/{token}",
        ),
        ("/m/jane.doe@example.org", "/m/{email}"),
        ("/m/jane%40example.org", "/m/{email}"),
        ("/f/123.json", "/f/{id}.json"),
        ("/f/invoice-20417.pdf", "/f/invoice-{id}.pdf"),
        ("/f/app.3f2a9c1b.js", "/f/app.{hex}.js"),
        ("/f/my-post-48213", "/f/my-post-{id}"),
    ] {
        assert_eq!(text(target), route);
    }
}

#[test]
fn fixed_segments_stay() {
    // Versions, words and file names are part of the route.
    for target in [
        "/",
        "//a//b/",
        "/v1/",
        "/api/v2.1/",
        "/static/app.js",
        "/oauth2/",
        "/ipv4",
        "/2.0/x",
        "/step-2",
        "/rfc2616",
        "/facade",
        "/deadbeef",
        "/@scope/pkg",
        "/lib@1.2.3",
        "/.well-known/openid-configuration",
        "/jquery-3.7.1.min.js",
        "/getUserProfileByIdentificationNumber",
        "/ten-tips-for-a-better-night-of-sleep",
        "/caf%C3%A9",
        "/{id}",
    ] {
        assert_eq!(text(target), target);
    }
}

#[test]
fn all_target_forms_have_a_route() {
    // Absolute targets count by their path; targets without one have a name.
    for (target, route) in [
        ("http://host:80/a/1?x=1", "/a/{id}?x"),
        ("http://host", "/"),
        ("https://host?x=1", "/?x"),
        ("/redirect/http://host/x", "/redirect/http://host/x"),
        ("*", "*"),
        ("host:443", "{authority}"),
        ("", "{authority}"),
        ("/a#b?c", "/a"),
        ("/a;jsessionid=xxxx/b;c", "/a/b"),
        ("/a/b…", "/a/…"),
    ] {
        assert_eq!(text(target), route, "{target}");
    }
}

#[test]
fn queries_become_sorted_names() {
    // Values go, names are shown once each, and masked or numbered ones merge.
    for (target, route) in [
        ("/s?q=a&page=2&q=b", "/s?page&q"),
        ("/s?", "/s"),
        ("/s?&=v&a", "/s?a"),
        ("/s?***=x&na*=x", "/s?*"),
        ("/s?f[3]=x&f[4][n]=x&f[]=", "/s?f[]&f[][n]"),
        ("/s?1700000000=&1700000001=", "/s?{id}"),
        ("/s?a=1&b…", "/s?a&…"),
    ] {
        assert_eq!(text(target), route, "{target}");
    }
    let many: Vec<String> = (b'a'..=b'z')
        .map(|c| format!("{}=1", char::from(c)))
        .collect();
    assert_eq!(
        text(&format!("/s?{}", many.join("&"))),
        "/s?a&b&c&d&e&f&g&h&…"
    );
}

#[test]
fn long_routes_are_cut() {
    // A route has at most so many characters, whatever their size in bytes.
    let route = text(&"/é".repeat(1000));
    assert_eq!(route.chars().count(), ROUTE_CHARS_MAX);
    assert!(route.ends_with(ELLIPSIS));
    let fits = "/é".repeat(ROUTE_CHARS_MAX / 2);
    assert_eq!(text(&fits), fits);
}

#[test]
fn names_fold_where_there_are_too_many() {
    // New values at a crowded position share a row; known ones keep theirs.
    let mut table = RouteTable::default();
    let mut row = |target: &str| table.fold("GET", &template(target)).route;
    let name = |index: usize| {
        let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
        format!("/users/{}{}/posts", letter(index), letter(index / 26))
    };
    for index in 0..VALUES_MAX {
        assert_eq!(row(&name(index)), name(index));
    }
    for index in VALUES_MAX..VALUES_MAX + 50 {
        assert_eq!(row(&name(index)), "/users/{value}/posts");
    }
    assert_eq!(row(&name(0)), name(0));
    assert_eq!(row("/users/17/posts"), "/users/{id}/posts");
    assert_eq!(row("/orders"), "/orders");
}

#[test]
fn routes_beyond_the_limit_share_one_row() {
    // A full table still knows its own routes and counts the others.
    let mut table = RouteTable::new(2);
    let mut row = |method: &str, target: &str| {
        let endpoint = table.fold(method, &template(target));
        format!("{} {}", endpoint.method, endpoint.route)
    };
    assert_eq!(row("GET", "/a"), "GET /a");
    assert_eq!(row("POST", "/a"), "POST /a");
    assert_eq!(row("GET", "/b"), "{other} {other routes}");
    assert_eq!(row("POST", "/c"), "{other} {other routes}");
    assert_eq!(row("GET", "/a"), "GET /a");
    assert_eq!(table.folded(), 2);
}

#[test]
fn unusual_methods_share_a_name() {
    // Methods cannot be used to fill the table.
    let mut table = RouteTable::default();
    for method in ["B***", "get", ""] {
        assert_eq!(table.fold(method, &template("/a")).method, OTHER_METHOD);
    }
    assert_eq!(table.fold("PROPFIND", &template("/a")).method, "PROPFIND");
}

proptest! {
    /// Any target has a route within the limits, and the route of a route of an
    /// origin-form target is itself.
    #[test]
    fn templates_are_bounded(target in "[/a-f0-9?&=.@;…é%-]{0,60}|.{0,400}") {
        let route = text(&target);
        prop_assert!(route.chars().count() <= ROUTE_CHARS_MAX);
        let query = template(&target).query;
        prop_assert!(query.len() <= QUERY_NAMES_MAX + 1);
        let path = template(&target).path;
        if path.starts_with('/') && !path.contains(['?', '#', ';']) {
            prop_assert_eq!(&template(&path).path, &path);
        }
    }

    /// A table never holds more than its limit, whatever comes.
    #[test]
    fn tables_are_bounded(targets in proptest::collection::vec("(/[a-z]{1,3}){1,3}", 0..200)) {
        let mut table = RouteTable::new(20);
        let rows: HashSet<Endpoint> = targets
            .iter()
            .map(|target| table.fold("GET", &template(target)))
            .collect();
        prop_assert!(rows.len() <= 21);
    }
}
