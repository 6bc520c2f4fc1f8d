package conformance

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// Text writes one result for people: what failed quotes the contract.
func (r Result) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-4s  %s (%s)\n", r.Outcome, r.Name, r.Took.Round(time.Millisecond))
	if r.Outcome == Fail {
		fmt.Fprintf(&b, "      contract: %q\n", oneLine(r.Rule))
	}
	for _, why := range r.Why {
		fmt.Fprintf(&b, "      %s\n", strings.ReplaceAll(why, "\n", "\n      "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Summary is the last line for people.
func (r *Report) Summary() string {
	verdict := "keeps the contract"
	if r.Count(Fail) > 0 {
		verdict = "does not keep the contract"
	}
	return fmt.Sprintf("%s %s %s: %d passed, %d failed, %d skipped", r.Plugin, r.Version, verdict, r.Count(Pass), r.Count(Fail), r.Count(Skip))
}

// JSON writes the report as one object.
func (r *Report) JSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(r)
}

// JUnit writes the report in the form that CI systems read.
func (r *Report) JUnit(w io.Writer) error {
	type message struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Time    string   `xml:"time,attr"`
		Failure *message `xml:"failure"`
		Skipped *message `xml:"skipped"`
	}
	type testsuite struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Time     string     `xml:"time,attr"`
		Cases    []testcase `xml:"testcase"`
	}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	suite := testsuite{Name: r.Plugin, Tests: len(r.Results), Failures: r.Count(Fail), Skipped: r.Count(Skip)}
	var all time.Duration
	for _, result := range r.Results {
		all += result.Took
		c := testcase{Name: result.Name, Class: r.Plugin, Time: seconds(result.Took)}
		why := &message{Message: oneLine(result.Rule), Text: strings.Join(result.Why, "\n")}
		switch result.Outcome {
		case Fail:
			c.Failure = why
		case Skip:
			c.Skipped = why
		case Pass:
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Time = seconds(all)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	out := xml.NewEncoder(w)
	out.Indent("", "  ")
	if err := out.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
