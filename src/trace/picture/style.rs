//! Colours and letters of the picture: dark on light, and light on dark where the reader's page is dark.

/// The style sheet. The colours of the two packets can be told apart by people who see no red or no green, too.
pub(super) const SHEET: &str = "
text{font-family:ui-sans-serif,system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2328}
.page{fill:#ffffff}
.host{fill:#f6f8fa;stroke:#d0d7de}
.band{stroke:#d0d7de;stroke-dasharray:3 4;fill:none}
.title{font-size:15px;font-weight:600}
.name{font-size:14px;font-weight:600}
.bandname{font-size:10px;fill:#6e7781}
.legend{font-size:11px;fill:#57606a}
.end{font-size:13px;font-weight:600}
.end.dead{fill:#b3261e}
.way{fill:none;stroke-width:2.5}
.way.inner{stroke:#0969da}
.way.outer{stroke:#bc6c00}
.way.program{stroke:#57606a}
.way.faint{stroke-dasharray:3 4;opacity:.55}
.card{fill:#ffffff;stroke-width:1.5}
.card.inner{stroke:#0969da}
.card.outer{stroke:#bc6c00}
.card.program{stroke:#57606a;fill:#eaeef2}
.card.absent{stroke:#8c959f;stroke-dasharray:3 4;fill:none}
.card.dead{stroke:#b3261e;stroke-width:2.5;fill:#ffebe9}
.station{font-size:12px;font-weight:600}
.station.absent{fill:#6e7781;font-weight:400}
.number{font-weight:400;fill:#6e7781}
.detail,.time{font-size:10.5px;fill:#57606a}
.detail.dead{fill:#82071e}
.deathbed{fill:#b3261e}
.cross{stroke:#ffffff;stroke-width:2;fill:none;stroke-linecap:round}
.tip.inner{fill:#0969da}
.tip.outer{fill:#bc6c00}
.tip.program{fill:#57606a}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}
.page{fill:#0d1117}
.host{fill:#161b22;stroke:#30363d}
.band{stroke:#30363d}
.bandname,.legend,.detail,.time,.number{fill:#9198a1}
.card{fill:#0d1117}
.card.program{fill:#21262d;stroke:#9198a1}
.card.inner,.way.inner{stroke:#58a6ff}
.card.outer,.way.outer{stroke:#e3a33c}
.way.program{stroke:#9198a1}
.card.absent{stroke:#6e7681;fill:none}
.card.dead{stroke:#ff7b72;fill:#3c1214}
.detail.dead{fill:#ffb4ae}
.end.dead{fill:#ff7b72}
.deathbed{fill:#da3633}
.station.absent{fill:#9198a1}
.tip.inner{fill:#58a6ff}
.tip.outer{fill:#e3a33c}
.tip.program{fill:#9198a1}
}
";

/// The tips of the arrows.
pub(super) const MARKERS: &str = "<defs>
<marker id=\"inner\" viewBox=\"0 0 8 8\" refX=\"6.5\" refY=\"4\" markerWidth=\"4\" markerHeight=\"4\" orient=\"auto\"><path class=\"tip inner\" d=\"M0 0L8 4L0 8z\"/></marker>
<marker id=\"outer\" viewBox=\"0 0 8 8\" refX=\"6.5\" refY=\"4\" markerWidth=\"4\" markerHeight=\"4\" orient=\"auto\"><path class=\"tip outer\" d=\"M0 0L8 4L0 8z\"/></marker>
<marker id=\"program\" viewBox=\"0 0 8 8\" refX=\"6.5\" refY=\"4\" markerWidth=\"4\" markerHeight=\"4\" orient=\"auto\"><path class=\"tip program\" d=\"M0 0L8 4L0 8z\"/></marker>
</defs>
";
