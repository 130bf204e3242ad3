/* What a POST /run orders: arguments, environment and folder, out of its fields. */
#include "init.h"

enum { FIELDS_LIMIT = 8192 };

static u64 count_list(char **list)
{
    u64 count = 0;
    while (list[count])
        count++;
    return count;
}

/* Add a variable, in place of an earlier one of its name. */
static void set_variable(char **environment, u64 *count, char *variable)
{
    u64 size = text_find((struct text){variable, length(variable)}, '=') + 1;
    u64 at = 0;
    while (at < *count && !(length(environment[at]) >= size && memcmp(environment[at], variable, size) == 0))
        at++;
    environment[at] = variable;
    if (at == *count)
        (*count)++;
}

/* Decode a value and end it with NUL, in the place of what followed it in its line. */
static bool decode(struct text *value)
{
    if (!text_decode(value))
        return false;
    value->at[value->size] = 0;
    return true;
}

static bool take_field(struct order *order, struct text name, struct text value)
{
    bool variable = text_is(name, "x-hearth-env"), argument = text_is(name, "x-hearth-arg");
    bool folder = text_is(name, "x-hearth-cwd");
    if (!variable && !argument && !folder)
        return true;
    if (!decode(&value))
        return false;
    if (folder) {
        order->program.folder = value.at;
        return value.size > 0;
    }
    if (argument) {
        order->program.arguments[order->arguments++] = value.at;
        return true;
    }
    u64 equals = text_find(value, '=');
    if (equals == 0 || equals == value.size)
        return false;
    set_variable(order->program.environment, &order->variables, value.at);
    return true;
}

const char *order_read(struct order *order, const struct head *head)
{
    struct text fields = head->fields, name, value;
    u64 inherited = count_list(flags.environment), count = 0;
    while (next_field(&fields, &name, &value))
        count++;
    if (count > FIELDS_LIMIT)
        return "the request has more than 8192 fields";
    order->size = (inherited + 2 * count + 2) * sizeof(char *);
    order->memory = pages_get(order->size);
    if (!order->memory)
        return "no memory";
    order->program = (struct program){order->memory, order->memory + count + 1, NULL, -1, -1, -1};
    memcpy(order->program.environment, flags.environment, inherited * sizeof(char *));
    order->variables = inherited;
    order->arguments = 0;
    for (fields = head->fields; next_field(&fields, &name, &value);)
        if (!take_field(order, name, value))
            return "x-hearth-env must be NAME=VALUE; x-hearth-arg and x-hearth-cwd must be text; all with %XX";
    if (order->arguments == 0)
        order->program.arguments = flags.program;
    return order->program.arguments[0] ? NULL : "there is no program: give x-hearth-arg";
}

void order_drop(struct order *order)
{
    pages_drop(order->memory, order->size);
    order->memory = NULL;
}
