package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// row is one line of a list by Docker's field names.
type row map[string]any

// column is one field with its heading.
type column struct{ field, heading string }

// listing prints rows as a table of columns, as JSON lines, or by a template;
// quiet prints only one field.
type listing struct {
	format  string
	quiet   string // field, empty for the whole row
	columns []column
	all     []column // further fields that "table" templates may name
}

func (l listing) print(out io.Writer, rows []row) error {
	if l.quiet != "" {
		for _, r := range rows {
			fmt.Fprintln(out, r[l.quiet])
		}
		return nil
	}
	switch {
	case l.format == "" || l.format == "table":
		var fields, headings []string
		for _, c := range l.columns {
			fields = append(fields, "{{."+c.field+"}}")
			headings = append(headings, c.heading)
		}
		return printTable(out, strings.Join(headings, "\t"), strings.Join(fields, "\t"), rows)
	case l.format == "json":
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		for _, r := range rows {
			if err := encoder.Encode(r); err != nil {
				return err
			}
		}
		return nil
	case strings.HasPrefix(l.format, "table "):
		text := unescape(strings.TrimPrefix(l.format, "table "))
		headings := map[string]any{}
		for _, c := range append(l.columns, l.all...) {
			headings[c.field] = c.heading
		}
		var heading strings.Builder
		if err := execute(&heading, text, headings); err != nil {
			return err
		}
		return printTable(out, heading.String(), text, rows)
	}
	t, err := parse(unescape(l.format) + "\n")
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := fill(out, t, r); err != nil {
			return err
		}
	}
	return nil
}

func printTable(out io.Writer, heading, text string, rows []row) error {
	t, err := parse(text + "\n")
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(table, heading)
	for _, r := range rows {
		if err := fill(table, t, r); err != nil {
			return err
		}
	}
	return table.Flush()
}

// unescape turns a shell user's \t and \n into what they mean.
func unescape(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var b strings.Builder
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		err := encoder.Encode(v)
		return strings.TrimSuffix(b.String(), "\n"), err
	},
	"join": strings.Join, "split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"truncate": func(s string, n int) string { return s[:min(len(s), n)] },
	"println":  fmt.Sprintln,
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
}

func execute(out io.Writer, text string, data any) error {
	t, err := parse(text)
	if err != nil {
		return err
	}
	return fill(out, t, data)
}

func parse(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, &status{64, fmt.Sprintf("template parsing error: %v", err)}
	}
	return t, nil
}

func fill(out io.Writer, t *template.Template, data any) error {
	if err := t.Execute(out, data); err != nil {
		return &status{1, fmt.Sprintf("template execution error: %v", err)}
	}
	return nil
}

// inspectAll prints objects as Docker's inspect: a JSON list, or a template for
// each, which may use Go's names or those of the JSON.
func inspectAll(out io.Writer, format string, names []string, get func(name string) (object any, raw json.RawMessage, err error)) error {
	list := []json.RawMessage{}
	var failed []string
	for _, name := range names {
		object, raw, err := get(name)
		if err != nil {
			failed = append(failed, explain(err).Error())
			continue
		}
		if format == "" || format == "json" {
			list = append(list, raw)
			continue
		}
		if err := inspectOne(out, unescape(format), object, raw); err != nil {
			return err
		}
	}
	if format == "" || format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		if format == "" {
			encoder.SetIndent("", "    ")
		}
		if err := encoder.Encode(list); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return &status{1, strings.Join(failed, "\n")}
	}
	return nil
}

func inspectOne(out io.Writer, format string, object any, raw json.RawMessage) error {
	var b strings.Builder
	typed := execute(&b, format, object)
	if typed != nil {
		var generic any
		if err := json.Unmarshal(raw, &generic); err != nil {
			return err
		}
		b.Reset()
		if err := execute(&b, format, generic); err != nil {
			return typed
		}
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

// filterFlags turns --filter values into the API's.
func filterFlags(values []string) (map[string]map[string]bool, error) {
	filters := map[string]map[string]bool{}
	for _, value := range values {
		key, text, ok := strings.Cut(value, "=")
		if !ok {
			return nil, &status{1, fmt.Sprintf("invalid argument %q for \"-f, --filter\" flag: bad format of filter (expected name=value)", value)}
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if filters[key] == nil {
			filters[key] = map[string]bool{}
		}
		filters[key][strings.TrimSpace(text)] = true
	}
	return filters, nil
}

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// shown shortens an ID unless --no-trunc is given.
func shown(id string, full bool) string {
	if full {
		return id
	}
	return short(id)
}
