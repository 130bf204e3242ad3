-- wrk's script: greets, checks each answer, and prints what was seen as one line of JSON.
-- With the argument `accept` the calls are to be run later, and each answer must say that they will be.

local name = "wrk-load-000"
local expected = '"Hello, ' .. name .. '!"'
local threads = {}
wrong = 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name":"' .. name .. '"}'

local accepted = false

function init(arguments)
  if arguments[1] == "accept" then
    accepted = true
    wrk.headers["Prefer"] = "respond-async"
  end
end

function setup(thread)
  threads[#threads + 1] = thread
end

function response(status, headers, body)
  if accepted then
    if status ~= 202 then
      wrong = wrong + 1
    end
  elseif status ~= 200 or not body:find(expected, 1, true) then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local all, steps = 0, {}
  for _, thread in ipairs(threads) do
    all = all + thread:get("wrong")
  end
  for step = 1, #latency do
    local microseconds, count = latency(step)
    steps[step] = string.format("[%d,%d]", microseconds, count)
  end
  local errors = summary.errors
  local text = '{"seconds":%.6f,"requests":%d,"faults":{"wrong answer":%d,"cannot connect":%d,'
    .. '"connection lost":%d,"no answer in time":%d},"latencies":[%s]}\n'
  io.write(string.format(text, summary.duration / 1e6, summary.requests, all, errors.connect,
    errors.read + errors.write, errors.timeout, table.concat(steps, ",")))
end
