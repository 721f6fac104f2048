//! Colours and measures, light and dark: those of the reports, so that a picture and a page look alike.

use eframe::egui::{
    self, Color32, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, TextStyle, Theme, Visuals, vec2,
};

/// The colours of a theme.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// Behind everything.
    pub paper: Color32,
    /// Cards.
    pub card: Color32,
    /// What lies in a card: fields, tracks of bars.
    pub well: Color32,
    /// Text.
    pub ink: Color32,
    /// Text that matters less.
    pub dim: Color32,
    /// Lines.
    pub line: Color32,
    /// What can be done.
    pub accent: Color32,
    /// Text on it.
    pub on_accent: Color32,
    /// What went wrong.
    pub wrong: Color32,
    /// Divergence from the original, at its strongest.
    pub heat: Color32,
    /// Of the original, then of the compressions.
    pub series: [Color32; 8],
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const LIGHT: Palette = Palette {
    paper: rgb(0xf3f4f6),
    card: rgb(0xffffff),
    well: rgb(0xf0f2f4),
    ink: rgb(0x1c1e21),
    dim: rgb(0x5f656c),
    line: rgb(0xd9dce0),
    accent: rgb(0x1f6fd6),
    on_accent: rgb(0xffffff),
    wrong: rgb(0xb3261e),
    heat: rgb(0xf08c00),
    series: [
        rgb(0x3b3f45),
        rgb(0x1f6fd6),
        rgb(0xd9480f),
        rgb(0x2b8a3e),
        rgb(0x9c36b5),
        rgb(0x0b7285),
        rgb(0xc2255c),
        rgb(0x8a6d00),
    ],
};

const DARK: Palette = Palette {
    paper: rgb(0x121417),
    card: rgb(0x1b1e22),
    well: rgb(0x24282d),
    ink: rgb(0xe8eaed),
    dim: rgb(0x9aa0a6),
    line: rgb(0x33373d),
    accent: rgb(0x6ea8fe),
    on_accent: rgb(0x0c1a2e),
    wrong: rgb(0xff8a80),
    heat: rgb(0xe8590c),
    series: [
        rgb(0xc6cad0),
        rgb(0x6ea8fe),
        rgb(0xff922b),
        rgb(0x69db7c),
        rgb(0xda77f2),
        rgb(0x3bc9db),
        rgb(0xf783ac),
        rgb(0xffd43b),
    ],
};

/// The colours in use.
pub fn palette(ui: &egui::Ui) -> &'static Palette {
    if ui.visuals().dark_mode { &DARK } else { &LIGHT }
}

/// How far a divergence is from nothing to hopeless, 0 to 1: 0.001 nats are nothing, 3 are another text.
pub fn heat(kl_divergence: f64) -> f32 {
    const LEAST: f64 = 1e-3;
    const MOST: f64 = 3.0;
    if kl_divergence <= LEAST {
        return 0.0;
    }
    (((kl_divergence / LEAST).ln() / (MOST / LEAST).ln()).min(1.0) as f32).powf(1.4)
}

impl Palette {
    /// Background of a token with this divergence.
    pub fn tint(&self, kl_divergence: f64) -> Color32 {
        match heat(kl_divergence) {
            0.0 => Color32::TRANSPARENT,
            heat => self.heat.gamma_multiply(0.75 * heat),
        }
    }

    fn visuals(&self, base: Visuals) -> Visuals {
        let dark = base.dark_mode;
        let mut v = base;
        v.panel_fill = self.paper;
        v.window_fill = self.card;
        v.window_stroke = Stroke::new(1.0, self.line);
        v.extreme_bg_color = self.well;
        v.faint_bg_color = self.well;
        v.code_bg_color = self.well;
        v.hyperlink_color = self.accent;
        v.warn_fg_color = self.heat;
        v.error_fg_color = self.wrong;
        v.weak_text_color = Some(self.dim);
        v.window_corner_radius = CornerRadius::same(10);
        v.menu_corner_radius = CornerRadius::same(10);
        let alpha = if dark { 110 } else { 40 };
        v.popup_shadow = Shadow { offset: [0, 6], blur: 24, spread: 0, color: Color32::from_black_alpha(alpha) };
        v.window_shadow = v.popup_shadow;
        v.selection.bg_fill = self.accent.gamma_multiply(if dark { 0.35 } else { 0.22 });
        v.selection.stroke = Stroke::new(1.0, self.accent);
        v.slider_trailing_fill = true;
        let radius = CornerRadius::same(6);
        let states = [
            (&mut v.widgets.noninteractive, self.card, self.line, self.ink),
            (&mut v.widgets.inactive, self.well, self.line, self.ink),
            (&mut v.widgets.hovered, mix(self.well, self.ink, 0.08), self.line, self.ink),
            (&mut v.widgets.active, mix(self.well, self.ink, 0.14), self.accent, self.ink),
            (&mut v.widgets.open, mix(self.well, self.ink, 0.06), self.line, self.ink),
        ];
        for (widget, fill, stroke, ink) in states {
            widget.bg_fill = fill;
            widget.weak_bg_fill = fill;
            widget.bg_stroke = Stroke::new(1.0, stroke);
            widget.fg_stroke = Stroke::new(1.0, ink);
            widget.corner_radius = radius;
            widget.expansion = 0.0;
        }
        v
    }
}

/// A colour between two.
pub fn mix(a: Color32, b: Color32, share_of_b: f32) -> Color32 {
    a.lerp_to_gamma(b, share_of_b)
}

/// A family of fixed width, for what is typed or counted.
pub fn mono(size: f32) -> FontId {
    FontId::new(size, FontFamily::Monospace)
}

/// Sets both themes.
pub fn install(ctx: &egui::Context) {
    for (theme, palette, base) in [(Theme::Dark, &DARK, Visuals::dark()), (Theme::Light, &LIGHT, Visuals::light())] {
        ctx.style_mut_of(theme, |style| {
            style.visuals = palette.visuals(base);
            style.text_styles = [
                (TextStyle::Heading, FontId::proportional(21.0)),
                (TextStyle::Body, FontId::proportional(15.0)),
                (TextStyle::Button, FontId::proportional(15.0)),
                (TextStyle::Small, FontId::proportional(13.0)),
                (TextStyle::Monospace, mono(14.0)),
            ]
            .into();
            let s = &mut style.spacing;
            s.item_spacing = vec2(8.0, 8.0);
            s.button_padding = vec2(10.0, 5.0);
            s.interact_size.y = 28.0;
            s.window_margin = Margin::same(14);
            s.menu_margin = Margin::same(10);
            s.slider_width = 140.0;
            s.scroll.floating = true;
            style.interaction.selectable_labels = false;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agrees_is_clear_and_what_does_not_glows() {
        assert_eq!((heat(0.0), heat(1e-3), heat(50.0)), (0.0, 0.0, 1.0));
        assert!(heat(0.01) < heat(0.1) && heat(0.1) < heat(1.0));
        assert_eq!(LIGHT.tint(1e-4), Color32::TRANSPARENT);
        assert_ne!(DARK.tint(0.5), Color32::TRANSPARENT);
    }

    /// WCAG's contrast ratio.
    fn contrast(a: Color32, b: Color32) -> f64 {
        let luminance = |c: Color32| {
            let linear = |v: u8| {
                let v = f64::from(v) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * linear(c.r()) + 0.7152 * linear(c.g()) + 0.0722 * linear(c.b())
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        if a > b { a / b } else { b / a }
    }

    #[test]
    fn text_can_be_read_on_everything_it_stands_on() {
        for p in [LIGHT, DARK] {
            for (text, ground) in [
                (p.ink, p.card),
                (p.ink, p.well),
                (p.dim, p.card),
                (p.dim, p.paper),
                (p.dim, p.well),
                (p.on_accent, p.accent),
                (p.wrong, p.card),
                (p.accent, p.card),
            ] {
                assert!(contrast(text, ground) >= 4.5, "{text:?} on {ground:?}: {:.2}", contrast(text, ground));
            }
            // The strongest tint is blended over a card.
            let hot = mix(p.card, p.heat, 0.75);
            assert!(contrast(p.ink, hot) >= 4.0, "{:.2}", contrast(p.ink, hot));
        }
    }
}
