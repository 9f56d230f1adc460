// The same work in Go with its standard library: rows of a text file (no SQL: that would need a module), checked,
// encoded by encoding/json, sent by net/http from as many goroutines as requests in flight; answers parsed and checked.
//
//	peer ROWS URL VENDOR IN_FLIGHT
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type row struct {
	email, name string
	time        time.Time
	properties  properties
}

type properties struct {
	Name       string  `json:"event_name,omitempty"` // Vibetrace's generic events have it among their properties
	Page       string  `json:"page"`
	Plan       string  `json:"plan"`
	Amount     float64 `json:"amount"`
	Quantity   int64   `json:"quantity"`
	FirstOrder int64   `json:"first_order"`
}

type vendor struct {
	batch               int
	path, header, value string
	encode              func(rows []row) ([]byte, error)
	check               func(answer []byte, count int) error
}

type identifier struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type embeddablesEvent struct {
	Embeddable  string       `json:"embeddable_id"`
	Timestamp   string       `json:"timestamp"`
	Name        string       `json:"custom_event_name"`
	Properties  string       `json:"custom_event_props"`
	Identifiers []identifier `json:"identifiers"`
}

func embeddables(rows []row) ([]byte, error) {
	r := &rows[0]
	props, err := json.Marshal(&r.properties)
	if err != nil {
		return nil, err
	}
	email, err := json.Marshal(r.email)
	if err != nil {
		return nil, err
	}
	return json.Marshal(&embeddablesEvent{
		"flow_bench", r.time.UTC().Format("2006-01-02T15:04:05.000Z"), r.name, string(props),
		[]identifier{{"email", string(email)}},
	})
}

type vibetraceEvent struct {
	User struct {
		Email string `json:"email"`
	} `json:"user"`
	Event struct {
		Generic struct {
			Generic *properties `json:"generic"`
		} `json:"generic"`
	} `json:"event"`
}

func vibetrace(rows []row) ([]byte, error) {
	var event vibetraceEvent
	event.User.Email = rows[0].email
	event.Event.Generic.Generic = &rows[0].properties
	rows[0].properties.Name = rows[0].name
	return json.Marshal(&event)
}

type webengageEvent struct {
	User string      `json:"userId"`
	Name string      `json:"eventName"`
	Time string      `json:"eventTime"`
	Data *properties `json:"eventData"`
}

func webengage(rows []row) ([]byte, error) {
	bulk := struct {
		Events []webengageEvent `json:"events"`
	}{make([]webengageEvent, len(rows))}
	for n := range rows {
		r := &rows[n]
		bulk.Events[n] = webengageEvent{r.email, r.name, r.time.Format("2006-01-02T15:04:05-0700"), &r.properties}
	}
	return json.Marshal(&bulk)
}

type customer struct {
	Registered string `json:"registered"`
}

type bloomreachEvent struct {
	Customer   customer    `json:"customer_ids"`
	Type       string      `json:"event_type"`
	Properties *properties `json:"properties"`
	Timestamp  float64     `json:"timestamp"`
}

type command struct {
	Name string          `json:"name"`
	ID   string          `json:"command_id"`
	Data bloomreachEvent `json:"data"`
}

func bloomreach(rows []row) ([]byte, error) {
	batch := struct {
		Commands []command `json:"commands"`
	}{make([]command, len(rows))}
	for n := range rows {
		r := &rows[n]
		batch.Commands[n] = command{"customers/events", strconv.Itoa(n),
			bloomreachEvent{customer{r.email}, r.name, &r.properties, float64(r.time.UnixMilli()) / 1000}}
	}
	return json.Marshal(&batch)
}

var vendors = map[string]vendor{
	"embeddables": {1, "/projects/pr_bench/events", "X-Api-Key", "rk_bench", embeddables,
		func(answer []byte, count int) error {
			var said struct {
				Entry string `json:"entry_id"`
			}
			return accepted(json.Unmarshal(answer, &said), said.Entry != "")
		}},
	"vibetrace": {1, "/event", "Authorization", "key_bench", vibetrace,
		func(answer []byte, count int) error {
			var said struct {
				Results map[string]string `json:"results"`
			}
			return accepted(json.Unmarshal(answer, &said), said.Results != nil)
		}},
	"webengage": {25, "/v1/accounts/bench/bulk-events", "Authorization", "Bearer key_bench", webengage,
		func(answer []byte, count int) error {
			var said struct {
				Response struct {
					Status string `json:"status"`
				} `json:"response"`
			}
			return accepted(json.Unmarshal(answer, &said), said.Response.Status == "queued")
		}},
	"bloomreach": {50, "/track/v2/projects/bench/batch", "Authorization", "Basic aWQ6c2VjcmV0", bloomreach,
		func(answer []byte, count int) error {
			var said struct {
				Success bool `json:"success"`
				Results []struct {
					Success bool `json:"success"`
				} `json:"results"`
			}
			err := json.Unmarshal(answer, &said)
			good := said.Success && len(said.Results) == count
			for _, result := range said.Results {
				good = good && result.Success
			}
			return accepted(err, good)
		}},
}

func accepted(err error, good bool) error {
	if err == nil && !good {
		err = errors.New("the vendor did not accept")
	}
	return err
}

// source gives batches of checked rows to one goroutine at a time.
type source struct {
	lock sync.Mutex
	text *bufio.Scanner
}

func (s *source) next(rows []row) []row {
	s.lock.Lock()
	defer s.lock.Unlock()
	rows = rows[:0]
	for len(rows) < cap(rows) && s.text.Scan() {
		rows = append(rows, parse(s.text.Text()))
	}
	return rows
}

func parse(line string) row {
	var cells [9]string
	for n := range cells {
		cells[n], line, _ = strings.Cut(line, "\t")
	}
	moment, err := time.Parse(time.RFC3339Nano, cells[3])
	must(err)
	amount, err := strconv.ParseFloat(cells[6], 64)
	must(err)
	quantity, err := strconv.ParseInt(cells[7], 10, 64)
	must(err)
	first, err := strconv.ParseInt(cells[8], 10, 64)
	must(err)
	if cells[1] == "" || cells[2] == "" {
		log.Fatal("a row that is no event")
	}
	return row{cells[1], cells[2], moment, properties{"", cells[4], cells[5], amount, quantity, first}}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	file, err := os.Open(os.Args[1])
	must(err)
	target, chosen := os.Args[2], vendors[os.Args[3]]
	inFlight, err := strconv.Atoi(os.Args[4])
	must(err)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight, MaxConnsPerHost: inFlight}}
	rows := &source{text: bufio.NewScanner(file)}
	var wait sync.WaitGroup
	var lock sync.Mutex
	requests, delivered, refused := 0, 0, 0
	started, cpu := time.Now(), cpuSeconds()
	for n := 0; n < inFlight; n++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			sent, took, failed := 0, 0, 0
			batch := make([]row, 0, chosen.batch)
			for {
				if batch = rows.next(batch); len(batch) == 0 {
					break
				}
				body, err := chosen.encode(batch)
				must(err)
				request, err := http.NewRequest("POST", target+chosen.path, bytes.NewReader(body))
				must(err)
				request.Header.Set(chosen.header, chosen.value)
				request.Header.Set("Content-Type", "application/json")
				response, err := client.Do(request)
				must(err)
				answer, err := io.ReadAll(response.Body)
				must(err)
				response.Body.Close()
				sent++
				if response.StatusCode/100 == 2 && chosen.check(answer, len(batch)) == nil {
					took += len(batch)
				} else {
					failed++
				}
			}
			lock.Lock()
			defer lock.Unlock()
			requests, delivered, refused = requests+sent, delivered+took, refused+failed
		}()
	}
	wait.Wait()
	must(rows.text.Err())
	fmt.Printf(`{"requests":%d,"refused":%d,"delivered":%d,"seconds":%.6f,"cpu_seconds":%.6f}`+"\n",
		requests, refused, delivered, time.Since(started).Seconds(), cpuSeconds()-cpu)
}
