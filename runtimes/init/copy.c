/* --copy: what an image has in the folder of a volume. Not written yet. */
#include "init.h"

void copy_folder(char *from_and_to) { (void)from_and_to; }
