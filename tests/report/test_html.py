"""The page of a run."""

from nasi_jax.report import Section, html_report


def test_a_page_shows_what_a_section_has():
    page = html_report(
        "A < B",
        "x|y",
        [
            Section("Cell", picture=b"png", text="below"),
            Section("Costs", text="why", columns=("name", "value"), rows=[("a&b", 1234567.0), ("c", 0.123456789)]),
            Section("Train", command="nasi train --fix '0->1=a'"),
            Section("Settings", columns=("name",), rows=[("seed",)], folded=True),
        ],
    )
    assert "<h1>A &lt; B</h1><p><code>x|y</code></p>" in page
    assert '<img alt="Cell" src="data:image/png;base64,cG5n"><figcaption>below</figcaption>' in page
    assert '<td>a&amp;b</td><td class="figure">1,234,567</td>' in page
    assert '<td class="figure">0.123457</td>' in page
    assert "<pre>nasi train --fix &#x27;0-&gt;1=a&#x27;</pre>" in page
    assert "<details><summary>Settings</summary>" in page
    assert 'name="viewport"' in page
    assert page.index("Cell") < page.index("Costs") < page.index("Train") < page.index("Settings")


def test_figures_that_are_not_numbers_are_shown_as_they_are():
    page = html_report(
        "t", "l", [Section("s", columns=("v",), rows=[(float("nan"),), (float("inf"),), (True,), ("",)])]
    )
    assert '<td class="figure">nan</td>' in page
    assert '<td class="figure">inf</td>' in page
    assert "<td>True</td>" in page
