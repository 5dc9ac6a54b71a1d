//! Reports: the page of a made-up sweep of 60 trials in a browser, its plots, and names that try to break out.

use std::path::{Path, PathBuf};

use mergesweep::paired;
use mergesweep::report::page::{Document, Flip, Page};
use mergesweep::report::{html, plot};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::synthetic;

const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

fn write(page: &Page, folder: &Path) -> PathBuf {
    let path = folder.join("page.html");
    std::fs::write(&path, html::write(page, &plot::draw(page))).unwrap();
    path
}

/// Names of the rows in sight, from the top.
fn names(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#scores tbody tr')].filter((row) => !row.hidden)\
                  .map((row) => row.cells[0].dataset.v)";
    serde_json::from_value(browser.eval(script)).unwrap()
}

/// Values of a column in the order of the rows; cells without one are left out.
fn values(browser: &Browser, head: &str) -> Vec<f64> {
    let script = format!(
        "const head = [...document.querySelectorAll('#scores thead th')].find((th) => th.textContent.startsWith('{head}'));\
         return [...document.querySelectorAll('#scores tbody tr')].map((row) => row.cells[head.cellIndex].dataset.v)\
         .filter(Boolean).map(Number)"
    );
    serde_json::from_value(browser.eval(&script)).unwrap()
}

fn no_complaints(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_same_sweep_gives_the_same_page_and_plots() {
    let page = synthetic::sweep().page();
    let (plots, again) = (plot::draw(&page), plot::draw(&synthetic::sweep().page()));
    assert_eq!(html::write(&page, &plots), html::write(&synthetic::sweep().page(), &again));
    let first = plots.all().next().unwrap();
    assert_eq!(first.png().unwrap(), again.all().next().unwrap().png().unwrap());
}

#[test]
fn a_page_asks_the_network_for_nothing() {
    let page = synthetic::sweep().page();
    let text = html::write(&page, &plot::draw(&page));
    for request in ["http:", "https:", "src=", "url(", "@import", "fetch(", "XMLHttpRequest", "innerHTML"] {
        assert!(!text.contains(request), "{request}");
    }
    assert!(text.contains("default-src 'none'"));
}

#[test]
fn every_kind_of_plot_is_drawn() {
    let page = synthetic::sweep().page();
    let plots = plot::draw(&page);
    let names: Vec<&str> = plots.all().map(|plot| plot.name.as_str()).collect();
    for name in
        ["line_slerp_t_gsm8k", "heat_dare_ties_density_weight_humaneval", "scatter_humaneval_gsm8k", "strip_code_bpb"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    // A line and a map for each of six columns, every pair of them, and a strip each.
    assert_eq!(names.len(), 6 + 6 + 15 + 6);
    let svg = plots.all().next().unwrap().svg();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && !svg.contains("var("), "{svg}");
}

#[test]
fn text_in_a_png_is_set_without_fonts_of_the_machine() {
    let page = synthetic::sweep().page();
    let plot = plot::draw(&page).grids.remove(0).plots.remove(0);
    let with = plot.png().unwrap();
    let mut silent = plot.clone();
    silent.drawing = mergesweep::report::svg::Drawing::new(plot.drawing.width, plot.drawing.height);
    silent.drawing.text("", (0.0, -50.0), "");
    assert_eq!(with[..8], *b"\x89PNG\r\n\x1a\n");
    // A head alone changes the picture: its letters were found.
    let bare = silent.png().unwrap();
    silent.drawing.text("head", (8.0, 18.0), "humaneval");
    assert_ne!(silent.png().unwrap(), bare);
}

#[test]
fn the_page_sorts_filters_changes_theme_shows_items_and_prints() {
    let Some(browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = synthetic::sweep().page();
    let path = write(&page, folder.path());
    browser.resize(1400, 1000);
    browser.open(&path);
    let plan: Vec<String> = page.rows.iter().map(|row| row.name.clone()).collect();
    assert_eq!(names(&browser), plan);
    let timing = browser
        .eval("const t = performance.getEntriesByType('navigation')[0]; return [t.loadEventEnd, t.domInteractive]");
    let size = std::fs::metadata(&path).unwrap().len();
    eprintln!(
        "page of 60 trials: {} kB, loaded after {} ms (interactive after {} ms)",
        size / 1000,
        timing[0],
        timing[1]
    );
    assert_eq!(browser.eval("return performance.getEntriesByType('resource').length"), 0);

    sorting(&browser, &plan);
    filtering(&browser);
    themes(&browser, &path);
    items(&browser, &page);
    printing(&browser);
    phone(&browser);
    no_complaints(&browser);
}

fn sorting(browser: &Browser, plan: &[String]) {
    let head = "#scores thead th.score:nth-of-type(3)";
    let name: String = serde_json::from_value(
        browser.eval(&format!("return document.querySelector('{head} button').firstChild.textContent")),
    )
    .unwrap();
    let sorted = |descending: bool| {
        let mut expected = values(browser, &name);
        expected.sort_by(f64::total_cmp);
        if descending {
            expected.reverse();
        }
        expected
    };
    let state = || browser.eval(&format!("return document.querySelector('{head}').ariaSort"));
    browser.click(&format!("{head} button"));
    assert_eq!((values(browser, &name), state()), (sorted(true), json!("descending")), "best first");
    // By keyboard, the heads being buttons.
    browser.keys(&format!("{head} button"), ENTER);
    assert_eq!((values(browser, &name), state()), (sorted(false), json!("ascending")));
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.eval(outline), "solid", "the focus is seen");
    browser.press(ENTER);
    assert_eq!((names(browser).as_slice(), state()), (plan, json!("none")), "the order of the plan again");
    // A loss is best where it is least; rows without a value of an axis come last.
    let button =
        "[...document.querySelectorAll('#scores thead button')].find((b) => b.textContent.startsWith('code_bpb'))";
    browser.eval(&format!("{button}.click()"));
    assert_eq!(values(browser, "code_bpb").first(), sorted_first(browser, "code_bpb").as_ref());
    let axis = "[...document.querySelectorAll('#scores thead button')].find((b) => b.textContent === 't')";
    browser.eval(&format!("{axis}.click()"));
    assert!(names(browser)[..9].iter().all(|name| name.starts_with("SLERP")), "{:?}", names(browser));
    assert_eq!(names(browser)[0], "SLERP (t=0.1)");
}

fn sorted_first(browser: &Browser, head: &str) -> Option<f64> {
    values(browser, head).into_iter().min_by(f64::total_cmp)
}

fn filtering(browser: &Browser) {
    browser.keys("#filter", "dare 0.5");
    let found = names(browser);
    assert!(found.len() < 60 && !found.is_empty());
    assert!(found.iter().all(|name| name.starts_with("DARE") && name.contains("0.5")), "{found:?}");
    assert_eq!(
        browser.eval("return document.getElementById('shown').textContent"),
        format!("{} of 60 rows", found.len())
    );
    assert!(browser.eval("return document.querySelectorAll('.chart .dim').length").as_u64().unwrap() > 0);
    let set = |id: &str, value: &str| {
        browser.eval(&format!(
            "const e = document.getElementById('{id}'); e.value = '{value}'; e.dispatchEvent(new Event('input'))"
        ))
    };
    set("filter", "");
    set("method", "slerp");
    assert_eq!(names(browser).len(), 9);
    set("method", "");
    browser.click("#significant");
    let significant = names(browser).len();
    assert!(significant > 0 && significant < 60, "{significant}");
    browser.click("#significant");
    assert_eq!(names(browser).len(), 60);
}

fn background(browser: &Browser) -> Value {
    browser.eval("return getComputedStyle(document.body).backgroundColor")
}

fn themes(browser: &Browser, path: &Path) {
    assert_eq!(background(browser), "rgb(255, 255, 255)");
    browser.click("#theme");
    let dark = background(browser);
    assert_ne!(dark, "rgb(255, 255, 255)");
    assert_eq!(browser.eval("return document.getElementById('theme').textContent"), "Light theme");
    browser.open(path);
    assert_eq!(background(browser), dark, "the choice is kept");
    browser.click("#theme");
    assert_eq!(background(browser), "rgb(255, 255, 255)");
}

fn items(browser: &Browser, page: &Page) {
    let (row, column) = (2, 0);
    browser.keys(&format!("[data-open='{row}']"), ENTER);
    assert_eq!(browser.eval("return document.getElementById('trial').open"), true);
    assert_eq!(browser.eval("return document.getElementById('trial-name').textContent"), page.rows[row].name);
    let listed = format!("return document.querySelectorAll('#trial-body details[data-column=\"{column}\"] li').length");
    let cell = page.cell(row, column).unwrap();
    assert_eq!(browser.eval(&listed), cell.flips.len());
    let text = browser.eval("return document.querySelector('#trial-body details li').textContent");
    assert!(text.as_str().unwrap().contains('→'), "{text}");
    browser.press(ESCAPE);
    assert_eq!(browser.eval("return document.getElementById('trial').open"), false);
    // By the mouse, at the column.
    browser.eval("document.querySelector('tr[data-r=\"1\"] td.score:nth-of-type(1)').click()");
    assert_eq!(browser.eval("return document.getElementById('trial').open"), true);
    browser.click("#close");
}

fn printing(browser: &Browser) {
    let pdf = browser.print();
    assert_eq!(pdf[..5], *b"%PDF-");
    browser.click("#theme");
    browser.chrome("Emulation.setEmulatedMedia", &json!({ "media": "print" }));
    assert_eq!(background(browser), "rgb(255, 255, 255)", "paper is white whatever the theme");
    let hidden = "return [...document.querySelectorAll('form, #theme, nav')].every((e) => getComputedStyle(e).display === 'none')";
    assert_eq!(browser.eval(hidden), true);
    browser.chrome("Emulation.setEmulatedMedia", &json!({ "media": "" }));
    browser.click("#theme");
}

fn phone(browser: &Browser) {
    browser.resize(390, 844);
    let wide = browser.eval("return document.documentElement.scrollWidth");
    assert!(wide.as_u64().unwrap() <= 390, "only the table scrolls sideways, not the page: {wide}");
    browser.resize(1400, 1000);
}

/// Text that is a program where it is taken for markup.
const NASTY: &str = "<img src=x onerror=\"window.broken=1\">'\"&</script><script>window.broken=1</script><!--\u{202e}";

fn nasty() -> Page {
    let mut page = synthetic::sweep().page();
    page.sweep = NASTY.to_owned();
    page.findings.push(NASTY.to_owned());
    page.remarks.push(NASTY.to_owned());
    page.settings.push((NASTY.to_owned(), NASTY.to_owned()));
    page.sources.push((NASTY.to_owned(), NASTY.to_owned()));
    page.axes[0] = NASTY.to_owned();
    page.columns[0].name = NASTY.to_owned();
    page.columns[0].meaning = NASTY.to_owned();
    page.recipes[0].name = NASTY.to_owned();
    let text = || NASTY.to_owned();
    page.columns[0].documents = vec![Document { id: 1, hash: text(), texts: Some([text(), text(), text()]) }];
    for (index, row) in page.rows.iter_mut().enumerate() {
        row.name = format!("{NASTY} {index}");
        row.method = row.method.as_ref().map(|method| format!("{method} {NASTY}"));
        row.origin.config = Some(text());
        row.origin.hardware = Some(text());
        row.axes[0] = Some((text(), None));
        let cell = row.cells[0].as_mut().unwrap();
        cell.flips = vec![Flip { document: 0, row: text(), reference: text(), answer: Some(text()) }];
        row.cells[1].as_mut().unwrap().stands = paired::Cell::Apart(text());
    }
    page
}

#[test]
fn names_and_texts_from_outside_stay_text() {
    let page = nasty();
    let plots = plot::draw(&page);
    let text = html::write(&page, &plots);
    assert!(!text.contains("<img"), "markup got through");
    assert_eq!(text.matches("<script").count(), 2, "data and program");
    assert!(plots.all().all(|plot| !plot.svg().contains("<img") && plot.png().is_ok()));
    assert!(plots.all().all(|plot| !plot.name.contains(['/', '<', '"', '\'', ' '])));

    let Some(browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    browser.open(&write(&page, folder.path()));
    browser.eval("document.querySelector('[data-open=\"2\"]').click()");
    browser.eval("document.querySelectorAll('details').forEach((details) => { details.open = true; })");
    let shown = browser.eval("return document.querySelector('#trial-body details pre').textContent");
    assert_eq!(shown, NASTY, "as it was written");
    assert_eq!(browser.eval("return document.querySelectorAll('img').length"), 0);
    assert_eq!(browser.eval("return window.broken ?? null"), Value::Null);
    no_complaints(&browser);
}

/// Not a check: pictures to look at, some of them for the README.
#[test]
#[ignore = "takes pictures: MERGESWEEP_SCREENSHOTS=FOLDER cargo test -- --ignored pictures_of_the_page"]
fn pictures_of_the_page() {
    let shots = PathBuf::from(std::env::var_os("MERGESWEEP_SCREENSHOTS").unwrap());
    let Some(browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    // MERGESWEEP_PAGE: of another report.
    let path = match std::env::var_os("MERGESWEEP_PAGE") {
        Some(page) => std::path::absolute(page).unwrap(),
        None => write(&synthetic::sweep().page(), folder.path()),
    };
    std::fs::copy(&path, shots.join("page.html")).unwrap();
    for (device, size) in [("desktop", (1280, 900)), ("phone", (390, 844))] {
        browser.resize(size.0, size.1);
        browser.open(&path);
        for theme in ["light", "dark"] {
            // By its button, which names the other theme.
            let is_other = format!("document.documentElement.dataset.theme !== '{theme}'");
            let press = "document.getElementById('theme').click()";
            browser.eval(&format!("if ({is_other}) {press}; if ({is_other}) {press}"));
            for place in ["top", "grids", "trade-off", "methods", "provenance"] {
                let scroll = format!(
                    "(document.getElementById('{place}') ?? document.body).scrollIntoView({{ behavior: 'instant' }})"
                );
                browser.eval(&scroll);
                std::fs::write(shots.join(format!("report-{place}-{device}-{theme}.png")), browser.screenshot())
                    .unwrap();
            }
            browser.eval("scrollTo({ top: 0, behavior: 'instant' }); document.querySelector('tr[data-r=\"2\"] td.score').click()");
            std::fs::write(shots.join(format!("report-items-{device}-{theme}.png")), browser.screenshot()).unwrap();
            browser.eval("document.getElementById('close').click()");
        }
    }
    std::fs::write(shots.join("print.pdf"), browser.print()).unwrap();
}
