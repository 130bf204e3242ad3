/* GET, PUT and DELETE of /files/PATH. Not written yet. */
#include "init.h"

void files_begin(struct slot *slot)
{
    slot_answer(slot, 404, "bad-request", "NoSuchVerb", "init knows no files yet");
}
