package conformance

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestEveryCheckQuotesTheContract keeps the kit and the protos together: a sentence
// that changes is looked for in the checks, too.
func TestEveryCheckQuotesTheContract(t *testing.T) {
	protos, err := filepath.Glob("../proto/davit/*/v1/*.proto")
	if err != nil || len(protos) == 0 {
		t.Fatalf("no protos: %v", err)
	}
	var contract strings.Builder
	for _, path := range protos {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		contract.WriteString(" " + strings.ReplaceAll(string(text), "//", " "))
	}
	law := oneLine(contract.String())
	name := regexp.MustCompile(`^(plugin|storage|network|runtime|volume)/[a-z0-9-]+$`)
	for _, kind := range []Kind{Storage, Network, Runtime, Volume} {
		seen := map[string]bool{}
		for _, c := range Checks(kind) {
			if !strings.Contains(law, oneLine(c.Rule)) {
				t.Errorf("%s: the contract does not say %q", c.Name, c.Rule)
			}
			if !name.MatchString(c.Name) || seen[c.Name] {
				t.Errorf("the name %q is odd, or there twice", c.Name)
			}
			seen[c.Name] = true
		}
	}
}

func report() *Report {
	return &Report{Plugin: "volume-x", Version: "1", Kind: Volume, Features: []string{"clone"}, Results: []Result{
		{Name: "volume/a", Rule: "A.", Outcome: Pass, Took: time.Second},
		{Name: "volume/b", Rule: "B <must>\n be.", Outcome: Fail, Why: []string{"one & two", "three"}, Took: time.Second / 2},
		{Name: "volume/c", Rule: "C.", Outcome: Skip, Why: []string{"no feature"}},
	}}
}

func TestReports(t *testing.T) {
	r := report()
	if got := r.Summary(); got != "volume-x 1 does not keep the contract: 1 passed, 1 failed, 1 skipped" {
		t.Error(got)
	}
	var text bytes.Buffer
	if err := r.Results[1].Text(&text); err != nil {
		t.Fatal(err)
	}
	if want := "fail  volume/b (500ms)\n      contract: \"B <must> be.\"\n      one & two\n      three\n"; text.String() != want {
		t.Errorf("text is %q, not %q", text.String(), want)
	}
	var out bytes.Buffer
	if err := r.JSON(&out); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Results[1].Why[0] != "one & two" || back.Count(Fail) != 1 {
		t.Errorf("%v: %+v", err, back)
	}
	out.Reset()
	if err := r.JUnit(&out); err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Failure *struct {
				Text string `xml:",chardata"`
			} `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(out.Bytes(), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != 3 || suite.Failures != 1 || suite.Cases[1].Failure == nil || suite.Cases[1].Failure.Text != "one & two\nthree" ||
		suite.Cases[0].Failure != nil || suite.Cases[2].Skipped == nil {
		t.Errorf("%s", out.String())
	}
}

func TestHandshakeLines(t *testing.T) {
	for line, want := range map[string]string{
		"1|1|unix|/run/x/plugin1|grpc|":     "/run/x/plugin1",
		"1|1|unix|/run/x/plugin1|grpc|abc=": "/run/x/plugin1",
		"1|2|unix|/run/x|grpc|":             "",
		"1|1|tcp|127.0.0.1:1|grpc|":         "",
		"1|1|unix||grpc|":                   "",
		"hello":                             "",
		"":                                  "",
	} {
		got, err := parseHandshake(line)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}
