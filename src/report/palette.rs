//! The colours, light and dark, of page and plots. Better and worse are blue and vermillion (Okabe and Ito 2008), which
//! people with any colour vision tell apart, and never stand without a shape; the ramp of heat maps runs in lightness.

/// Name, light, dark.
const COLOURS: &[(&str, &str, &str)] = &[
    ("page", "#ffffff", "#15181b"),
    ("panel", "#f7f8f9", "#1c2024"),
    ("ink", "#1a1d21", "#e7e9eb"),
    ("muted", "#5b636c", "#9ba4ad"),
    ("rule", "#d9dde1", "#343a40"),
    ("faint", "#eceef0", "#262b30"),
    ("mark", "#4b5a68", "#a3b1bf"),
    ("better", "#0064a8", "#62b0f0"),
    ("worse", "#b84300", "#f2914a"),
    ("focus", "#0064a8", "#62b0f0"),
    ("heat0", "#f0f5fa", "#1c252e"),
    ("heat1", "#dbe8f4", "#20303f"),
    ("heat2", "#c3d9ed", "#253d52"),
    ("heat3", "#a6c7e4", "#2b4c69"),
    ("heat4", "#84b1d8", "#335e83"),
    ("heat5", "#5f98c9", "#3f739f"),
    ("heat6", "#3f7fb8", "#528abb"),
    ("heat7", "#2467a3", "#6ea4d6"),
    ("heat8", "#0d4d86", "#92c1ee"),
    ("onheat", "#ffffff", "#0f1418"),
];

/// Steps of the ramp of heat maps.
pub const HEAT_STEPS: usize = 9;

/// Steps from here on take the inverse text colour.
pub const DARK_FROM: usize = 6;

const CHART: &str = include_str!("chart.css");

/// Custom properties of both themes: light by default and in print, dark where the system or the reader says so.
pub fn properties() -> String {
    let block = |of: &dyn Fn(&(&str, &str, &str)) -> String| COLOURS.iter().map(of).collect::<String>();
    let light = block(&|(name, light, _)| format!("--{name}:{light};"));
    let dark = block(&|(name, _, dark)| format!("--{name}:{dark};"));
    format!(
        ":root{{color-scheme:light;{light}}}\n\
         @media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n\
         @media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
    )
}

/// The style of plots inside a page, which has the properties.
pub fn inline_style() -> &'static str {
    CHART
}

/// The style of plots in files of their own: light, colours written out.
pub fn file_style() -> String {
    COLOURS.iter().fold(CHART.to_owned(), |style, (name, light, _)| style.replace(&format!("var(--{name})"), light))
}
